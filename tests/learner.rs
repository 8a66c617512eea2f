//! Whole updates on every backend.

mod common;

use common::{Draw, expect_mismatch, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Backend, Cpu, CrossCheck, Memory, Variant};
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::ppo::{Actions, AdvantageScope, Config, Ends, KlStop, Learner, PolicyKind, Rollout, StopReason, UpdateStats};
use safetensors::SafeTensors;

on_every_backend!(
    an_update_moves_the_parameters_and_reports,
    the_same_seed_gives_the_same_bits,
    a_reset_learner_starts_over,
    noise_is_for_one_rollout,
    a_restored_learner_goes_on_with_the_same_bits,
    a_checkpoint_that_cannot_be_used_changes_nothing,
    a_nan_reward_stops_the_update_and_leaves_no_trace,
    an_infinite_gradient_stops_the_update_and_names_the_tensor,
    target_kl_after_an_epoch_leaves_the_remaining_epochs_out,
    target_kl_before_a_step_leaves_that_step_out,
    a_rollout_of_another_size_is_refused,
    an_action_that_does_not_exist_stops_the_update,
    a_gaussian_policy_learns_its_standard_deviation,
    outputs_of_both_networks_are_those_that_acting_takes,
    outputs_of_rows_that_are_not_there_are_refused_by_name,
    a_gradient_whose_squares_overflow_stops_an_update_that_would_clip,
    a_kl_beyond_all_numbers_stops_before_the_step,
    the_kl_that_stopped_an_update_is_reported,
    anything_may_stand_behind_a_termination,
    a_loss_that_overflows_stops_the_update_and_is_named,
    rewards_whose_squares_are_beyond_f32_are_learned_from,
);

const OBSERVATION_SIZE: usize = 5;
const DISCRETE: PolicyKind = PolicyKind::Categorical { actions: 3 };

fn small() -> Config {
    Config { num_envs: 3, num_steps: 16, hidden: vec![17, 9], num_minibatches: 4, update_epochs: 3, ..Config::default() }
}

/// A rollout of random observations, with the actions that the learner draws for them.
fn rollout<B: Backend>(backend: &mut B, learner: &mut Learner<B>) -> Rollout<B> {
    let mut rollout = learner.new_rollout(backend).unwrap();
    let (steps, envs) = (rollout.steps, rollout.envs);
    let mut draw = Draw::new(3);
    backend.write_floats(&mut rollout.observations, 0, &draw.floats(steps * envs * OBSERVATION_SIZE, 1.0)).unwrap();
    backend.write_floats(&mut rollout.rewards, 0, &draw.floats(steps * envs, 1.0)).unwrap();
    learner.draw_noise(backend).unwrap();
    (0..steps).for_each(|step| learner.act(backend, &mut rollout, step).unwrap());
    match &mut rollout.ends {
        Ends::BeforeStep { dones, next_value, next_done } => {
            let flags = |words: Vec<u32>| words.into_iter().map(|w| w as f32).collect::<Vec<_>>();
            backend.write_floats(dones, 0, &flags(draw.flags(steps * envs, 0.1))).unwrap();
            backend.write_floats(next_value, 0, &draw.floats(envs, 1.0)).unwrap();
            backend.write_floats(next_done, 0, &flags(draw.flags(envs, 0.3))).unwrap();
        }
        Ends::AfterStep { next_values, terminated, truncated } => {
            backend.write_floats(next_values, 0, &draw.floats(steps * envs, 1.0)).unwrap();
            backend.write_words(terminated, 0, &draw.flags(steps * envs, 0.1)).unwrap();
            backend.write_words(truncated, 0, &draw.flags(steps * envs, 0.1)).unwrap();
        }
    }
    rollout
}

fn learner_and_rollout<B: Backend>(backend: &mut B, policy: PolicyKind, config: Config) -> (Learner<B>, Rollout<B>) {
    let mut learner = Learner::new(backend, OBSERVATION_SIZE, policy, config).unwrap();
    let rollout = rollout(backend, &mut learner);
    (learner, rollout)
}

fn a_reset_learner_starts_over<B: Backend>(backend: &mut B) {
    let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, small());
    let start = learner.parameters(backend).unwrap();
    let first = learner.update(backend, &rollout, 1e-3).unwrap();
    let end = learner.state_f64(backend).unwrap();
    learner.reset(backend, &start).unwrap();
    assert_eq!(
        learner.update(backend, &rollout, 1e-3).unwrap(),
        first,
        "moments, steps and shuffles are those of a first update"
    );
    assert_eq!(learner.state_f64(backend).unwrap(), end);
    assert!(matches!(learner.reset(backend, &start[1..]), Err(Error::Shape { .. })));
}

/// Acts in every step; the actions.
fn act<B: Backend>(backend: &mut B, learner: &mut Learner<B>, rollout: &mut Rollout<B>) -> ppo_kernels::Result<Vec<u32>> {
    (0..rollout.steps).try_for_each(|step| learner.act(backend, rollout, step))?;
    let Actions::Discrete(actions) = &rollout.actions else { unreachable!("the policy is categorical") };
    backend.read_words(actions, 0, rollout.steps * rollout.envs)
}

fn noise_is_for_one_rollout<B: Backend>(backend: &mut B) {
    let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, small());
    let first = act(backend, &mut learner, &mut rollout).unwrap();
    assert_eq!(act(backend, &mut learner, &mut rollout).unwrap(), first, "steps can be repeated");
    learner.draw_noise(backend).unwrap();
    let second = act(backend, &mut learner, &mut rollout).unwrap();
    assert_ne!(second, first, "drawn twice, the same noise");

    // The policy stays as it is, so that other actions come from other noise.
    learner.update(backend, &rollout, 0.0).unwrap();
    let used_up = act(backend, &mut learner, &mut rollout);
    assert!(matches!(&used_up, Err(Error::InvalidValue { argument, .. }) if argument == "noise"), "{used_up:?}");
    learner.draw_noise(backend).unwrap();
    let third = act(backend, &mut learner, &mut rollout).unwrap();
    assert!(third != second && third != first, "after an update, noise of an earlier rollout");
}

/// Rollouts and updates, of which the last one's statistics, and the state after it.
fn updates<B: Backend>(backend: &mut B, learner: &mut Learner<B>, count: usize) -> (UpdateStats, [Vec<f64>; 3]) {
    let stats = (0..count).map(|_| {
        let rollout = rollout(backend, learner);
        learner.update(backend, &rollout, 1e-3).unwrap()
    });
    (stats.last().unwrap(), learner.state_f64(backend).unwrap())
}

fn a_restored_learner_goes_on_with_the_same_bits<B: Backend>(backend: &mut B) {
    for policy in [DISCRETE, PolicyKind::Gaussian { dim: 2 }] {
        let learner_of =
            |backend: &mut B, seed| Learner::new(backend, OBSERVATION_SIZE, policy, Config { seed, ..small() }).unwrap();
        let mut learner = learner_of(backend, 5);
        updates(backend, &mut learner, 5);
        // More draws than updates, so that one count cannot stand in for the other.
        learner.draw_noise(backend).unwrap();
        let checkpoint = learner.checkpoint(backend).unwrap();
        let parameters = learner.parameters(backend).unwrap();
        let uninterrupted = updates(backend, &mut learner, 1);

        let mut restored = learner_of(backend, 6);
        restored.draw_noise(backend).unwrap();
        restored.restore(backend, &checkpoint).unwrap();
        let mut rollout = restored.new_rollout(backend).unwrap();
        let stale = restored.act(backend, &mut rollout, 0);
        assert!(matches!(&stale, Err(Error::InvalidValue { argument, .. }) if argument == "noise"), "{stale:?}");
        assert_eq!(restored.config().seed, 5);
        assert_eq!(restored.checkpoint(backend).unwrap(), checkpoint);
        assert_eq!(updates(backend, &mut restored, 1), uninterrupted);

        let mut parameters_alone = learner_of(backend, 5);
        parameters_alone.set_parameters(backend, &parameters).unwrap();
        assert_ne!(updates(backend, &mut parameters_alone, 1), uninterrupted, "moments and counters are needed");
    }
}

fn a_checkpoint_that_cannot_be_used_changes_nothing<B: Backend>(backend: &mut B) {
    let checkpoint_of = |backend: &mut B, hidden: &[usize], policy| {
        let config = Config { hidden: hidden.to_vec(), ..small() };
        Learner::new(backend, OBSERVATION_SIZE, policy, config).unwrap().checkpoint(backend).unwrap()
    };
    let sound = checkpoint_of(backend, &small().hidden, DISCRETE);
    // safetensors: the header's length, the header, the numbers.
    let edited = |from: &str, to: &str| {
        let at = sound.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        [&sound[..at], to.as_bytes(), &sound[at + from.len()..]].concat()
    };
    let mut endless = sound.clone();
    let updates_at =
        SafeTensors::deserialize(&sound).unwrap().tensor("updates").unwrap().data().as_ptr().addr() - sound.as_ptr().addr();
    endless[updates_at..][..8].fill(0xff);
    let unusable = [
        (endless, "updates below 24019198012642645, got 18446744073709551615"),
        (Vec::new(), "safetensors"),
        (sound[..sound.len() - 8].to_vec(), "safetensors"),
        (checkpoint_of(backend, &[17, 10], DISCRETE), "parameters.actor.W1: F64 [9, 17], got F64 [10, 17]"),
        (checkpoint_of(backend, &[17], DISCRETE), "parameters.actor.W1"),
        (checkpoint_of(backend, &small().hidden, PolicyKind::Gaussian { dim: 3 }), "40 tensors, got 43"),
        (edited("m.critic.b2", "m.critic.B2"), "m.critic.b2: F64 [1], got no such tensor"),
        (edited("\"activation\":\"tanh\"", "\"activation\":\"relu\""), "activation tanh, got relu"),
        (edited("\"activation\"", "\"activities\""), "activation tanh, got none"),
        (edited("\"draws\":{\"dtype\":\"U64\"", "\"draws\":{\"dtype\":\"I64\""), "draws: U64 [], got I64 []"),
    ];
    let mut learner = Learner::new(backend, OBSERVATION_SIZE, DISCRETE, Config { seed: 5, ..small() }).unwrap();
    updates(backend, &mut learner, 1);
    let before = learner.checkpoint(backend).unwrap();
    for (bytes, expected) in unusable {
        match learner.restore(backend, &bytes) {
            Err(error @ Error::InvalidValue { .. }) => {
                assert!(error.to_string().starts_with("checkpoint: ") && error.to_string().contains(expected), "{error}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(learner.checkpoint(backend).unwrap(), before, "{expected}");
    }
    let mut poisoned = sound.clone();
    let v_at =
        SafeTensors::deserialize(&sound).unwrap().tensor("v.critic.b2").unwrap().data().as_ptr().addr() - sound.as_ptr().addr();
    poisoned[v_at..][..8].copy_from_slice(&f64::NAN.to_le_bytes());
    match learner.restore(backend, &poisoned) {
        Err(Error::NonFinite { tensor, element }) => assert_eq!((tensor.as_str(), element), ("v.critic.b2", 0)),
        other => panic!("{other:?}"),
    }
    assert_eq!(learner.checkpoint(backend).unwrap(), before);
}

fn outputs_of_both_networks_are_those_that_acting_takes<B: Backend>(backend: &mut B) {
    for policy in [DISCRETE, PolicyKind::Gaussian { dim: 2 }] {
        let (mut learner, rollout) = learner_and_rollout(backend, policy, small());
        let (envs, width) = (rollout.envs, policy.outputs());
        let [mut outputs, mut values] = [envs * width + 1, envs + 1].map(|len| backend.alloc_floats(len).unwrap());
        learner.actor_outputs(backend, &rollout.observations, envs, &mut outputs, 1).unwrap();
        learner.values(backend, &rollout.observations, envs, &mut values, 1).unwrap();
        let outputs = backend.read_f64(&outputs, 1, envs * width).unwrap();
        let [found, logp] = [&rollout.values, &rollout.logp].map(|buffer| backend.read_f64(buffer, 0, envs).unwrap());
        assert!(common::relative_error(&backend.read_f64(&values, 1, envs).unwrap(), &found) < 1e-5);
        match &rollout.actions {
            Actions::Discrete(actions) => {
                let actions = backend.read_words(actions, 0, envs).unwrap();
                let expected: Vec<f64> = outputs
                    .chunks(width)
                    .zip(actions)
                    .map(|(logits, action)| logits[action as usize] - logits.iter().map(|l| l.exp()).sum::<f64>().ln())
                    .collect();
                assert!(common::relative_error(&logp, &expected) < 1e-5, "{logp:?} {expected:?}");
            }
            Actions::Continuous(actions) => {
                let actions = backend.read_f64(actions, 0, envs * width).unwrap();
                let density = |(mean, x): (&f64, &f64)| -0.5 * (x - mean).powi(2) - 0.5 * std::f64::consts::TAU.ln();
                let densities: Vec<f64> = outputs.iter().zip(&actions).map(density).collect();
                let expected: Vec<f64> = densities.chunks(width).map(|row| row.iter().sum()).collect();
                assert!(common::relative_error(&logp, &expected) < 1e-5, "{logp:?} {expected:?}");
            }
        }
    }
}

fn outputs_of_rows_that_are_not_there_are_refused_by_name<B: Backend>(backend: &mut B) {
    let mut learner = Learner::new(backend, OBSERVATION_SIZE, DISCRETE, small()).unwrap();
    let [x, mut short] = [3 * OBSERVATION_SIZE - 1, 8].map(|len| backend.alloc_floats(len).unwrap());
    for (count, offset, values, outputs) in [
        (0, 0, "count", "count"),
        (4, 0, "count", "count"),
        (3, 0, "observations", "observations"),
        (2, 7, "values", "outputs"),
        (2, usize::MAX, "values_offset", "outputs_offset"),
    ] {
        let of_values = learner.values(backend, &x, count, &mut short, offset);
        let of_outputs = learner.actor_outputs(backend, &x, count, &mut short, offset);
        for (result, name) in [(of_values, values), (of_outputs, outputs)] {
            assert!(matches!(&result, Err(Error::Shape { argument, .. }) if argument == name), "{name}: {result:?}");
        }
    }
}

fn a_gradient_whose_squares_overflow_stops_an_update_that_would_clip<B: Backend>(backend: &mut B) {
    for max_grad_norm in [0.5, f64::INFINITY] {
        let config = Config { clip_vloss: false, huber_delta: Some(1.0), vf_coef: 1e25, max_grad_norm, ..small() };
        let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
        let before = learner.state_f64(backend).unwrap();
        match learner.update(backend, &rollout, 1e-3) {
            Err(Error::NonFinite { tensor, .. }) => {
                assert_eq!(tensor, "grad_norm");
                assert!(backend.describe().contains("GPU") && max_grad_norm.is_finite());
                assert_eq!(learner.state_f64(backend).unwrap(), before);
            }
            // What sums in double precision has a norm, and without a limit there is nothing to do with it.
            Ok(_) => {
                assert!(!backend.describe().contains("GPU") || max_grad_norm == f64::INFINITY);
                assert_ne!(learner.state_f64(backend).unwrap(), before);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Old log-probabilities so far below the new ones that the ratio e^149 is beyond f32, with advantages of both signs.
fn with_overflowing_ratios<B: Backend>(backend: &mut B, config: Config) -> (Learner<B>, Rollout<B>) {
    let (learner, mut rollout) = learner_and_rollout(backend, DISCRETE, config);
    let logp = backend.read_floats(&rollout.logp, 0, 48).unwrap();
    backend.write_floats(&mut rollout.logp, 0, &logp.iter().map(|logp| logp - 149.0).collect::<Vec<_>>()).unwrap();
    (learner, rollout)
}

fn a_kl_beyond_all_numbers_stops_before_the_step<B: Backend>(backend: &mut B) {
    let config = Config { target_kl: Some(0.02), kl_stop: KlStop::BeforeStep, ..small() };
    let (mut learner, rollout) = with_overflowing_ratios(backend, config.clone());
    let before = learner.state_f64(backend).unwrap();
    let stats = learner.update(backend, &rollout, 1e-2).unwrap();
    assert_eq!((stats.steps, stats.stop), (0, StopReason::TargetKl));
    assert!(stats.stopping_kl.is_some_and(|kl| kl > 1e38), "{:?}", stats.stopping_kl);
    assert_eq!(learner.state_f64(backend).unwrap(), before);
    // A step that is taken has to have a gradient.
    let (mut learner, rollout) = with_overflowing_ratios(backend, Config { target_kl: None, ..config });
    let before = learner.state_f64(backend).unwrap();
    match learner.update(backend, &rollout, 1e-2) {
        Err(Error::NonFinite { tensor, .. }) => assert!(tensor.starts_with("gradient of actor."), "{tensor}"),
        Ok(_) if backend.describe().contains("f64") => return,
        other => panic!("{other:?}"),
    }
    assert_eq!(learner.state_f64(backend).unwrap(), before);
}

fn the_kl_that_stopped_an_update_is_reported<B: Backend>(backend: &mut B) {
    let mut stats_of = |target_kl, kl_stop| {
        let config = Config { target_kl, kl_stop, ..small() };
        let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
        learner.update(backend, &rollout, 1e-2).unwrap()
    };
    let all = stats_of(None, KlStop::BeforeStep);
    assert_eq!((all.stop, all.stopping_kl), (StopReason::Completed, None));
    let kl_of = |step: usize| all.log[step][ppo_kernels::layout::stat::APPROX_KL];
    // The first minibatch has no KL yet, the second does, and stops the update before its step.
    let before_step = stats_of(Some(1e-6), KlStop::BeforeStep);
    assert_eq!((before_step.steps, before_step.approx_kl, before_step.stopping_kl), (1, kl_of(0), Some(kl_of(1))));
    assert!(kl_of(0) < 1e-6 && kl_of(1) > 1.5e-6, "{} {}", kl_of(0), kl_of(1));
    // The last minibatch of the first epoch is learned from, and stops what would follow.
    let after_epoch = stats_of(Some(1e-6), KlStop::AfterEpoch);
    assert_eq!((after_epoch.steps, after_epoch.approx_kl, after_epoch.stopping_kl), (4, kl_of(3), Some(kl_of(3))));
}

fn anything_may_stand_behind_a_termination<B: Backend>(backend: &mut B) {
    let name = |ends: &Ends<B::Floats, B::Words>| match ends {
        Ends::BeforeStep { .. } => "next_value",
        Ends::AfterStep { .. } => "next_values",
    };
    for bootstrap_truncated in [false, true] {
        let config = Config { bootstrap_truncated, ..small() };
        // Of the values behind the last three steps, which are all of those that `BeforeStep` has, the second and the third are behind a termination.
        let mut updated = |values: [f32; 3]| {
            let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, config.clone());
            match &mut rollout.ends {
                Ends::BeforeStep { next_value, next_done, .. } => {
                    backend.write_floats(next_value, 0, &values).unwrap();
                    backend.write_floats(next_done, 0, &[0.0, 1.0, 1.0]).unwrap();
                }
                Ends::AfterStep { next_values, terminated, truncated } => {
                    backend.write_floats(next_values, 45, &values).unwrap();
                    backend.write_words(terminated, 45, &[0, 1, 1]).unwrap();
                    backend.write_words(truncated, 45, &[1, 0, 1]).unwrap();
                }
            }
            let result = learner.update(backend, &rollout, 1e-3);
            (name(&rollout.ends), result, learner.state_f64(backend).unwrap())
        };
        let (_, expected, state) = updated([0.5, 0.0, 0.0]);
        let expected = expected.unwrap();
        for garbage in [[f32::NAN, f32::NAN], [f32::INFINITY, f32::NEG_INFINITY], [f32::MAX, f32::MIN]] {
            let (_, stats, found) = updated([0.5, garbage[0], garbage[1]]);
            assert_eq!(stats.unwrap(), expected, "{garbage:?}");
            assert_eq!(found, state, "{garbage:?}");
        }
        let (name, result, _) = updated([f32::NAN, f32::NAN, 0.0]);
        let at = if bootstrap_truncated { 45 } else { 0 };
        assert!(
            matches!(&result, Err(Error::NonFinite { tensor, element }) if tensor == name && *element == at),
            "{name}: {result:?}"
        );
    }
}

fn a_loss_that_overflows_stops_the_update_and_is_named<B: Backend>(backend: &mut B) {
    for (vf_coef, clip_vloss) in [(0.5, false), (0.5, true), (0.0, false)] {
        let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, Config { vf_coef, clip_vloss, ..small() });
        let before = learner.state_f64(backend).unwrap();
        let rewards = backend.read_floats(&rollout.rewards, 0, 48).unwrap();
        backend.write_floats(&mut rollout.rewards, 0, &rewards.iter().map(|r| r * 1e30).collect::<Vec<_>>()).unwrap();
        match learner.update(backend, &rollout, 1e-3) {
            Err(Error::NonFinite { tensor, element }) => {
                assert_eq!((tensor.as_str(), element), ("v_loss", 0));
                assert!(vf_coef != 0.0 && !backend.describe().contains("f64"));
                assert_eq!(learner.state_f64(backend).unwrap(), before);
            }
            // A loss that does not count may overflow; in double precision it does not.
            Ok(stats) => {
                assert!(vf_coef == 0.0 || backend.describe().contains("f64"));
                assert!(stats.loss.is_finite(), "{}", stats.loss);
                assert_ne!(learner.state_f64(backend).unwrap(), before);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The actor learns from normalised advantages, whatever the rewards' scale; Huber's loss and its gradient have no squares.
fn rewards_whose_squares_are_beyond_f32_are_learned_from<B: Backend>(backend: &mut B) {
    fn updated<B: Backend>(backend: &mut B, norm_adv: AdvantageScope) -> (Vec<f32>, Vec<f32>, UpdateStats) {
        let config = Config { clip_vloss: false, huber_delta: Some(1.0), norm_adv, update_epochs: 1, ..small() };
        let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, config);
        let before = learner.parameters(backend).unwrap();
        let rewards = backend.read_floats(&rollout.rewards, 0, 48).unwrap();
        backend.write_floats(&mut rollout.rewards, 0, &rewards.iter().map(|r| r * 3e18).collect::<Vec<_>>()).unwrap();
        let stats = learner.update(backend, &rollout, 1e-3).unwrap();
        (before, learner.parameters(backend).unwrap(), stats)
    }
    for norm_adv in [AdvantageScope::Minibatch, AdvantageScope::Rollout] {
        let (before, after, stats) = updated(backend, norm_adv);
        let (_, expected, expected_stats) = updated(&mut Cpu::<f64>::new(), norm_adv);
        let moved = |x: &[f32]| x.iter().zip(&before).map(|(x, b)| f64::from(x - b)).collect::<Vec<_>>();
        let actor = ..17 * OBSERVATION_SIZE;
        let error = common::relative_error(&moved(&after)[actor], &moved(&expected)[actor]);
        assert!(error < 1e-2, "{norm_adv:?}: {error}");
        let error = (stats.explained_variance - expected_stats.explained_variance).abs();
        assert!(error < 1e-5, "{} instead of {}", stats.explained_variance, expected_stats.explained_variance);
    }
}

/// Which kernels make a minibatch step must make no difference to any of these.
#[test]
fn every_form_of_a_step_stops_where_it_should() {
    let Some(mut gpu) = common::gpu() else { return };
    for (variant, form) in [(Variant::Plain, None), (Variant::Fast, Some(Form::ByTile)), (Variant::Fast, Some(Form::ByLayer))] {
        (gpu.variant, gpu.fused_form) = (variant, form);
        a_kl_beyond_all_numbers_stops_before_the_step(&mut gpu);
        the_kl_that_stopped_an_update_is_reported(&mut gpu);
        an_infinite_gradient_stops_the_update_and_names_the_tensor(&mut gpu);
        a_loss_that_overflows_stops_the_update_and_is_named(&mut gpu);
        rewards_whose_squares_are_beyond_f32_are_learned_from(&mut gpu);
    }
}

#[test]
fn more_minibatches_than_a_dimension_has_workgroups_are_learned_from() {
    let config = Config { num_envs: 2, num_steps: 70_000, num_minibatches: 70_000, update_epochs: 1, hidden: vec![2], ..small() };
    let mut cpu = Cpu::<f32>::new();
    let (mut learner, rollout) = learner_and_rollout(&mut cpu, DISCRETE, config);
    assert_eq!(learner.update(&mut cpu, &rollout, 1e-6).unwrap().steps, 70_000);
}

fn an_update_moves_the_parameters_and_reports<B: Backend>(backend: &mut B) {
    for bootstrap_truncated in [false, true] {
        let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, Config { bootstrap_truncated, ..small() });
        let before = learner.parameters(backend).unwrap();
        let stats = learner.update(backend, &rollout, 1e-3).unwrap();
        let after = learner.parameters(backend).unwrap();
        assert_eq!((stats.steps, stats.log.len(), stats.stop), (12, 12, StopReason::Completed));
        // Adam moves each parameter by at most about the learning rate a step.
        let furthest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!((1e-3..15e-3).contains(&furthest), "{furthest}");
        assert!(stats.entropy > 1.0 && stats.entropy <= 3f64.ln() + 1e-6, "{}", stats.entropy);
        // Right after the rollout the ratios are 1: the first minibatch has no KL, and its surrogate loss is that of normalised advantages.
        let [first, ..] = stats.log.as_slice() else { panic!("no log") };
        assert!(first[ppo_kernels::layout::stat::APPROX_KL].abs() < 1e-6);
        assert!(first[ppo_kernels::layout::stat::PG_LOSS].abs() < 1e-5);
    }
}

fn the_same_seed_gives_the_same_bits<B: Backend>(backend: &mut B) {
    let run = |backend: &mut B, seed| {
        let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, Config { seed, ..small() });
        learner.update(backend, &rollout, 1e-3).unwrap();
        let bits = learner.state_f64(backend).unwrap().map(|values| values.into_iter().map(f64::to_bits).collect::<Vec<_>>());
        bits.concat()
    };
    let first = run(backend, 5);
    assert_eq!(first, run(backend, 5));
    assert_ne!(first, run(backend, 6), "another seed has to give other numbers");
}

fn a_nan_reward_stops_the_update_and_leaves_no_trace<B: Backend>(backend: &mut B) {
    let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, small());
    let before = learner.state_f64(backend).unwrap();
    backend.write_floats(&mut rollout.rewards, 7, &[f32::NAN]).unwrap();
    match learner.update(backend, &rollout, 1e-3) {
        Err(Error::NonFinite { tensor, element }) => assert_eq!((tensor.as_str(), element), ("rewards", 7)),
        other => panic!("{other:?}"),
    }
    assert_eq!(learner.state_f64(backend).unwrap(), before);
    backend.write_floats(&mut rollout.rewards, 7, &[0.5]).unwrap();
    learner.update(backend, &rollout, 1e-3).expect("the learner goes on with a sound rollout");
}

fn an_infinite_gradient_stops_the_update_and_names_the_tensor<B: Backend>(backend: &mut B) {
    let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, Config { clip_vloss: false, ..small() });
    learner.update(backend, &rollout, 1e-3).unwrap();
    let before = learner.state_f64(backend).unwrap();
    // Finite, but its advantage is not after f32 arithmetic; in f64 the squares of the gradient stay finite, so ask for more there.
    let huge = vec![f32::MAX; rollout.steps * rollout.envs];
    backend.write_floats(&mut rollout.rewards, 0, &huge).unwrap();
    match learner.update(backend, &rollout, 1e-3) {
        Err(Error::NonFinite { tensor, .. }) => assert!(tensor.starts_with("gradient of "), "{tensor}"),
        Ok(_) if backend.describe().contains("f64") => return,
        other => panic!("{other:?}"),
    }
    assert_eq!(learner.state_f64(backend).unwrap(), before);
}

fn target_kl_after_an_epoch_leaves_the_remaining_epochs_out<B: Backend>(backend: &mut B) {
    let config = Config { target_kl: Some(1e-12), ..small() };
    let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
    let stats = learner.update(backend, &rollout, 1e-2).unwrap();
    assert_eq!((stats.steps, stats.stop), (4, StopReason::TargetKl));

    let config = Config { target_kl: Some(1e6), ..small() };
    let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
    assert_eq!(learner.update(backend, &rollout, 1e-2).unwrap().steps, 12);
}

fn target_kl_before_a_step_leaves_that_step_out<B: Backend>(backend: &mut B) {
    let config = Config { target_kl: Some(1e-6), kl_stop: KlStop::BeforeStep, ..small() };
    let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
    let stats = learner.update(backend, &rollout, 1e-2).unwrap();
    // The first minibatch has no KL yet; the second one does.
    assert_eq!((stats.steps, stats.stop), (1, StopReason::TargetKl));
}

fn a_rollout_of_another_size_is_refused<B: Backend>(backend: &mut B) {
    let (mut learner, _) = learner_and_rollout(backend, DISCRETE, small());
    learner.draw_noise(backend).unwrap();
    let mut refused = |backend: &mut B, rollout: &mut Rollout<B>, name: &str| {
        for result in [learner.act(backend, rollout, 0), learner.update(backend, rollout, 1e-3).map(drop)] {
            match result {
                Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) => assert_eq!(argument, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    };
    // Of another shape, though with as many rows.
    for (steps, envs) in [(16, 4), (48, 1), (3, 16)] {
        let mut other = Rollout::new(backend, steps, envs, OBSERVATION_SIZE, DISCRETE, false).unwrap();
        refused(backend, &mut other, "rollout");
    }
    type Shorten<B> = fn(&mut Rollout<B>, <B as Memory>::Floats, <B as Memory>::Words);
    let columns: [(&str, Shorten<B>); 8] = [
        ("rollout", |rollout, _, _| rollout.envs = usize::MAX),
        ("observations", |rollout, short, _| rollout.observations = short),
        ("actions", |rollout, _, short| rollout.actions = Actions::Discrete(short)),
        ("actions", |rollout, short, _| rollout.actions = Actions::Continuous(short)),
        ("logp", |rollout, short, _| rollout.logp = short),
        ("values", |rollout, short, _| rollout.values = short),
        ("rewards", |rollout, short, _| rollout.rewards = short),
        ("dones", |rollout, short, _| {
            if let Ends::BeforeStep { dones, .. } = &mut rollout.ends {
                *dones = short;
            }
        }),
    ];
    for (name, shorten) in columns {
        let mut rollout = Rollout::new(backend, 16, 3, OBSERVATION_SIZE, DISCRETE, false).unwrap();
        shorten(&mut rollout, backend.alloc_floats(47).unwrap(), backend.alloc_words(47).unwrap());
        refused(backend, &mut rollout, name);
    }
    // Rows of another width would be misread, and ends of the other convention taken for something else.
    let mut wider = Rollout::new(backend, 16, 3, OBSERVATION_SIZE + 1, DISCRETE, false).unwrap();
    refused(backend, &mut wider, "observations");
    let mut by_transition = Rollout::new(backend, 16, 3, OBSERVATION_SIZE, DISCRETE, true).unwrap();
    refused(backend, &mut by_transition, "ends");
    let bootstrapping = Config { bootstrap_truncated: true, ..small() };
    let (mut learner, _) = learner_and_rollout(backend, DISCRETE, bootstrapping);
    learner.draw_noise(backend).unwrap();
    let mut refused = |backend: &mut B, rollout: &mut Rollout<B>, name: &str| {
        let result = learner.act(backend, rollout, 0);
        assert!(
            matches!(&result, Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) if argument == name),
            "{result:?}"
        );
    };
    let mut by_start = Rollout::new(backend, 16, 3, OBSERVATION_SIZE, DISCRETE, false).unwrap();
    refused(backend, &mut by_start, "ends");
    let mut rollout = Rollout::new(backend, 16, 3, OBSERVATION_SIZE, DISCRETE, true).unwrap();
    let Ends::AfterStep { terminated, .. } = &mut rollout.ends else { unreachable!("truncations are bootstrapped") };
    *terminated = backend.alloc_words(47).unwrap();
    refused(backend, &mut rollout, "terminated");
    for (steps, envs, size) in [(usize::MAX, 2, 1), (1 << 16, 1 << 16, 1 << 31)] {
        assert!(matches!(Rollout::new(backend, steps, envs, size, DISCRETE, false), Err(Error::Shape { .. })));
    }
}

fn an_action_that_does_not_exist_stops_the_update<B: Backend>(backend: &mut B) {
    let (mut learner, mut rollout) = learner_and_rollout(backend, DISCRETE, small());
    let Actions::Discrete(actions) = &mut rollout.actions else { unreachable!("the policy is categorical") };
    backend.write_words(actions, 7, &[3]).unwrap();
    let result = learner.update(backend, &rollout, 1e-3);
    assert!(matches!(&result, Err(Error::NonFinite { tensor, .. }) if tensor.starts_with("gradient of actor")), "{result:?}");
}

fn a_gaussian_policy_learns_its_standard_deviation<B: Backend>(backend: &mut B) {
    let (mut learner, rollout) = learner_and_rollout(backend, PolicyKind::Gaussian { dim: 2 }, small());
    let at = learner.network().log_std_offset().unwrap();
    learner.update(backend, &rollout, 1e-3).unwrap();
    let parameters = learner.parameters(backend).unwrap();
    assert!(parameters[at..].iter().all(|p| *p != 0.0 && p.abs() < 0.02), "{:?}", &parameters[at..]);
}

#[test]
fn an_update_is_submitted_without_a_read_back_inside() {
    let Some(mut gpu) = common::gpu() else { return };
    let (mut learner, rollout) = learner_and_rollout(&mut gpu, DISCRETE, small());
    gpu.flush().unwrap();
    let before = gpu.context.submissions();
    learner.update(&mut gpu, &rollout, 1e-3).unwrap();
    // The first and the ninth of twelve steps, where the device can go ahead; the rest of the update with the read-back.
    let ahead = if gpu.context.is_software() { 0 } else { 2 };
    assert_eq!(gpu.context.submissions() - before, ahead + 1);
}

#[test]
fn a_minibatch_larger_than_the_batch_is_refused() {
    let mut cpu = Cpu::<f32>::new();
    for size in [0, 49] {
        match Learner::with_minibatch_size(&mut cpu, OBSERVATION_SIZE, DISCRETE, small(), size) {
            Err(Error::Shape { argument, .. }) => assert_eq!(argument, "minibatch_size"),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    let config = Config { num_minibatches: 49, ..small() };
    assert!(matches!(
        Learner::new(&mut cpu, OBSERVATION_SIZE, DISCRETE, config),
        Err(Error::InvalidValue { argument, .. }) if argument == "num_minibatches"
    ));
}

#[test]
fn hyper_parameters_out_of_range_are_named() {
    let nan = f64::NAN;
    let cases: [(&str, Config); 13] = [
        ("learning_rate", Config { learning_rate: nan, ..small() }),
        ("gamma", Config { gamma: 1.5, ..small() }),
        ("gae_lambda", Config { gae_lambda: -0.1, ..small() }),
        ("clip_coef", Config { clip_coef: 0.0, ..small() }),
        ("clip_coef", Config { clip_coef: nan, ..small() }),
        ("ent_coef", Config { ent_coef: f64::INFINITY, ..small() }),
        ("vf_coef", Config { vf_coef: -1.0, ..small() }),
        ("max_grad_norm", Config { max_grad_norm: 0.0, ..small() }),
        ("target_kl", Config { target_kl: Some(nan), ..small() }),
        ("adam_beta2", Config { adam_beta2: 1.0, ..small() }),
        ("dual_clip", Config { dual_clip: Some(1.0), ..small() }),
        ("num_envs", Config { num_envs: 0, ..small() }),
        ("hidden", Config { hidden: vec![3, 0], ..small() }),
    ];
    for (expected, config) in cases {
        match config.validate() {
            Err(Error::InvalidValue { argument, .. } | Error::Shape { argument, .. }) => assert_eq!(argument, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

/// What an update refuses has to be refused before it, by the name that the field has.
#[test]
fn an_update_takes_whatever_a_configuration_may_hold() {
    type Set = fn(&mut Config, f64);
    let fields: [(&str, Set); 18] = [
        ("learning_rate", |config, x| config.learning_rate = x),
        ("gamma", |config, x| config.gamma = x),
        ("gae_lambda", |config, x| config.gae_lambda = x),
        ("norm_adv_epsilon", |config, x| config.norm_adv_epsilon = x),
        ("clip_coef", |config, x| config.clip_coef = x),
        ("clip_coef", |config, x| (config.clip_coef, config.clip_vloss) = (x, false)),
        ("clip_coef_high", |config, x| config.clip_coef_high = Some(x)),
        ("dual_clip", |config, x| config.dual_clip = Some(x)),
        ("huber_delta", |config, x| (config.huber_delta, config.clip_vloss) = (Some(x), false)),
        ("ent_coef", |config, x| config.ent_coef = x),
        ("vf_coef", |config, x| config.vf_coef = x),
        ("kl_coef", |config, x| config.kl_coef = x),
        ("max_grad_norm", |config, x| config.max_grad_norm = x),
        ("max_grad_norm_epsilon", |config, x| config.max_grad_norm_epsilon = x),
        ("target_kl", |config, x| config.target_kl = Some(x)),
        ("target_kl", |config, x| (config.target_kl, config.kl_stop) = (Some(x), KlStop::BeforeStep)),
        ("adam_eps", |config, x| config.adam_eps = x),
        ("weight_decay", |config, x| config.weight_decay = x),
    ];
    let (tiny, huge) = (f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    let backend = &mut Cpu::<f32>::new();
    for (name, set) in fields {
        let mut refused = 0;
        for x in [f64::NEG_INFINITY, -1e300, -1.0, 0.0, 1e-300, tiny, 0.5, 2.0, huge, 1e300, f64::INFINITY, f64::NAN] {
            let mut config = small();
            set(&mut config, x);
            match config.validate() {
                Ok(()) => {
                    let learning_rate = config.learning_rate;
                    let (mut learner, rollout) = learner_and_rollout(backend, DISCRETE, config);
                    let result = learner.update(backend, &rollout, learning_rate);
                    assert!(matches!(result, Ok(_) | Err(Error::NonFinite { .. })), "{name} = {x:e}: {result:?}");
                }
                Err(Error::InvalidValue { argument, .. } | Error::Conflict { argument, .. }) => {
                    assert!(argument.ends_with(name), "{name} = {x:e}: {argument}");
                    refused += 1;
                }
                other => panic!("{name} = {x:e}: {other:?}"),
            }
        }
        assert!((2..12).contains(&refused), "{name}: {refused}");
    }
}

#[test]
fn a_whole_update_passes_the_cross_check() {
    let Some(mut both) = common::checked() else { return };
    for policy in [DISCRETE, PolicyKind::Gaussian { dim: 2 }] {
        let (mut learner, rollout) = learner_and_rollout(&mut both, policy, small());
        learner.update(&mut both, &rollout, 1e-3).unwrap();
    }
    assert!(both.worst().len() > 20, "{:?}", both.worst().keys());
}

#[test]
fn a_number_that_both_backends_find_is_none_is_named_as_without_a_cross_check() {
    let Some(mut both) = common::checked() else { return };
    a_nan_reward_stops_the_update_and_leaves_no_trace(&mut both);
    an_action_that_does_not_exist_stops_the_update(&mut both);
}

#[test]
fn a_fault_outside_an_update_is_not_placed_in_the_last_one() {
    let Some(gpu) = common::gpu() else { return };
    let mut both = CrossCheck::new(gpu, Cpu::<f64>::new());
    let (mut learner, mut rollout) = learner_and_rollout(&mut both, DISCRETE, small());
    learner.update(&mut both, &rollout, 1e-3).unwrap();
    learner.draw_noise(&mut both).unwrap();
    common::plant_fault(&mut both.a, "linear", "case 1u: { return tanh_of(x); }", "case 1u: { return 1.01 * tanh_of(x); }");
    let mismatch = expect_mismatch(learner.act(&mut both, &mut rollout, 0));
    assert_eq!((mismatch.operation, mismatch.update, mismatch.minibatch), ("linear_forward", None, None));
}

#[test]
fn a_fault_planted_in_one_kernel_is_named_with_its_place() {
    let Some(gpu) = common::gpu() else { return };
    let mut both = CrossCheck::new(gpu, Cpu::<f64>::new());
    let (mut learner, rollout) = learner_and_rollout(&mut both, DISCRETE, small());
    learner.update(&mut both, &rollout, 1e-3).unwrap();
    let wrong = plant(include_str!("../shaders/gather.wgsl"), "old_logp[row], advantages[row]", "old_logp[row], advantages[i]");
    both.a.context.replace_shader("gather", wrong);
    let mismatch = expect_mismatch(learner.update(&mut both, &rollout, 1e-3).map(|_| ()));
    assert_eq!((mismatch.operation, mismatch.tensor), ("gather_samples", "samples"));
    assert_eq!((mismatch.update, mismatch.minibatch), (Some(1), Some(0)));
    let text = mismatch.to_string();
    assert!(text.contains("gather_samples: samples[") && text.contains("in update 1, minibatch 0"), "{text}");
}
