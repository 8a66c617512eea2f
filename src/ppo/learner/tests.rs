//! Tests of private state.

use super::Learner;
use crate::backend::{Cpu, Memory};
use crate::ppo::{Config, PolicyKind};

/// Packs of two epochs with one left over, of one, and of all five.
#[test]
fn how_many_epochs_are_packed_at_once_changes_no_bit() {
    let updated = |epochs_packed: usize| {
        let config = Config { num_envs: 4, num_steps: 16, num_minibatches: 4, update_epochs: 5, ..Config::default() };
        let backend = &mut Cpu::<f32>::new();
        let mut learner = Learner::new(backend, 3, PolicyKind::Categorical { actions: 2 }, config).unwrap();
        assert_eq!(learner.epochs_packed, 5);
        learner.epochs_packed = epochs_packed;
        let mut rollout = learner.new_rollout(backend).unwrap();
        let numbers = |len: usize| (0..len).map(|i| (i as f32).sin()).collect::<Vec<_>>();
        backend.write_floats(&mut rollout.observations, 0, &numbers(192)).unwrap();
        backend.write_floats(&mut rollout.rewards, 0, &numbers(64)).unwrap();
        learner.draw_noise(backend).unwrap();
        (0..16).for_each(|step| learner.act(backend, &mut rollout, step).unwrap());
        let stats = learner.update(backend, &rollout, 1e-2).unwrap();
        (stats, learner.state_f64(backend).unwrap())
    };
    let all_at_once = updated(5);
    assert_eq!(updated(1), all_at_once);
    assert_eq!(updated(2), all_at_once);
}
