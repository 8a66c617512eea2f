//! Advantages and returns.

mod common;

use common::{Draw, checked, expect_mismatch, plant};
use ppo_kernels::backend::{AdvantageOps, Cpu, CrossCheck, Gpu, Memory, Variant};
use ppo_kernels::kernels::advantage::{
    CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands,
};
use ppo_kernels::{Error, Result};
use proptest::prelude::{Just, prop_assert, prop_oneof, proptest};

/// [`on_every_backend!`], with both ways of the GPU to walk over time.
macro_rules! on_every_variant {
    ($($name:ident),+ $(,)?) => {
        on_every_backend!($($name),+);
        mod gpu_row { $(#[test] fn $name() { super::on_gpu(super::Variant::Plain, |gpu| super::$name(gpu)) })+ }
        mod gpu_scan { $(#[test] fn $name() { super::on_gpu(super::Variant::Fast, |gpu| super::$name(gpu)) })+ }
    };
}

fn on_gpu(variant: Variant, body: impl FnOnce(&mut Gpu)) {
    if let Some(mut gpu) = common::gpu() {
        gpu.variant = variant;
        body(&mut gpu);
    }
}

on_every_variant!(
    gives_the_numbers_of_rlax,
    gives_the_numbers_of_rl_triton,
    with_lambda_one_advantages_are_returns_less_values,
    with_lambda_zero_advantages_are_the_deltas,
    a_termination_drops_and_a_truncation_keeps_the_next_value,
    nothing_behind_an_end_leaks,
    nothing_leaks_where_nothing_is_discounted_in,
    both_forms_agree_where_nothing_is_truncated,
    integers_come_out_exact,
);

/// Inputs of all four operations, on the host.
#[derive(Clone)]
struct Rollout {
    steps: usize,
    envs: usize,
    rewards: Vec<f32>,
    values: Vec<f32>,
    next_values: Vec<f32>,
    next_value: Vec<f32>,
    terminated: Vec<u32>,
    truncated: Vec<u32>,
}

struct Outputs {
    advantages: Vec<f32>,
    returns: Vec<f32>,
}

impl Rollout {
    /// Without ends; next values are the values of the next step.
    fn new(envs: usize, rewards: &[f32], values: &[f32], next_value: &[f32]) -> Self {
        let n = rewards.len();
        Self {
            steps: n / envs,
            envs,
            rewards: rewards.to_vec(),
            values: values.to_vec(),
            next_values: values[envs..].iter().chain(next_value).copied().collect(),
            next_value: next_value.to_vec(),
            terminated: vec![0; n],
            truncated: vec![0; n],
        }
    }

    fn draw(seed: u64, steps: usize, envs: usize, ends: f64) -> Self {
        let (mut draw, n) = (Draw::new(seed), steps * envs);
        let mut rollout = Self::new(envs, &draw.floats(n, 1.0), &draw.floats(n, 2.0), &draw.floats(envs, 2.0));
        (rollout.terminated, rollout.truncated) = (draw.flags(n, ends), draw.flags(n, ends));
        let at_ends = draw.floats(n, 3.0);
        for i in (0..n).filter(|&i| rollout.terminated[i] | rollout.truncated[i] != 0) {
            rollout.next_values[i] = at_ends[i];
        }
        rollout
    }

    fn dones(&self) -> (Vec<f32>, Vec<f32>) {
        let done: Vec<f32> = self.terminated.iter().zip(&self.truncated).map(|(a, b)| (a | b) as f32).collect();
        let (before, last) = done.split_at(done.len() - self.envs);
        ([&vec![0.0; self.envs], before].concat(), last.to_vec())
    }

    fn gae<B: AdvantageOps>(&self, backend: &mut B, gamma: f64, gae_lambda: f64) -> Result<Outputs> {
        let op = Gae { steps: self.steps, envs: self.envs, gamma, gae_lambda };
        let n = self.rewards.len();
        let [rewards, values, next_values] =
            [&self.rewards, &self.values, &self.next_values].map(|data| backend.upload_floats(data).unwrap());
        let [terminated, truncated] = [&self.terminated, &self.truncated].map(|data| backend.upload_words(data).unwrap());
        let [mut advantages, mut returns] = [n, n].map(|n| backend.alloc_floats(n).unwrap());
        let operands = GaeOperands {
            rewards: &rewards,
            values: &values,
            next_values: &next_values,
            terminated: &terminated,
            truncated: &truncated,
            advantages: &mut advantages,
            returns: &mut returns,
        };
        backend.gae(&op, operands)?;
        Ok(Outputs { advantages: backend.read_floats(&advantages, 0, n)?, returns: backend.read_floats(&returns, 0, n)? })
    }

    fn gae_cleanrl<B: AdvantageOps>(&self, backend: &mut B, gamma: f64, gae_lambda: f64) -> Result<Outputs> {
        let op = Gae { steps: self.steps, envs: self.envs, gamma, gae_lambda };
        let n = self.rewards.len();
        let (dones, next_done) = self.dones();
        let [rewards, values, dones, next_value, next_done] =
            [&self.rewards, &self.values, &dones, &self.next_value, &next_done].map(|data| backend.upload_floats(data).unwrap());
        let [mut advantages, mut returns] = [n, n].map(|n| backend.alloc_floats(n).unwrap());
        let operands = CleanRlGaeOperands {
            rewards: &rewards,
            values: &values,
            dones: &dones,
            next_value: &next_value,
            next_done: &next_done,
            advantages: &mut advantages,
            returns: &mut returns,
        };
        backend.gae_cleanrl(&op, operands)?;
        Ok(Outputs { advantages: backend.read_floats(&advantages, 0, n)?, returns: backend.read_floats(&returns, 0, n)? })
    }

    fn discounted_returns<B: AdvantageOps>(&self, backend: &mut B, gamma: f64) -> Result<Vec<f32>> {
        let op = DiscountedReturns { steps: self.steps, envs: self.envs, gamma };
        let [rewards, next_values, next_value] =
            [&self.rewards, &self.next_values, &self.next_value].map(|data| backend.upload_floats(data).unwrap());
        let [terminated, truncated] = [&self.terminated, &self.truncated].map(|data| backend.upload_words(data).unwrap());
        let mut returns = backend.alloc_floats(self.rewards.len()).unwrap();
        let operands = ReturnsOperands {
            rewards: &rewards,
            next_values: &next_values,
            next_value: &next_value,
            terminated: &terminated,
            truncated: &truncated,
            returns: &mut returns,
        };
        backend.discounted_returns(&op, operands)?;
        backend.read_floats(&returns, 0, self.rewards.len())
    }

    fn reward_to_go<B: AdvantageOps>(&self, backend: &mut B, gamma: f64) -> Result<Vec<f32>> {
        let op = DiscountedReturns { steps: self.steps, envs: self.envs, gamma };
        let rewards = backend.upload_floats(&self.rewards).unwrap();
        let [terminated, truncated] = [&self.terminated, &self.truncated].map(|data| backend.upload_words(data).unwrap());
        let mut returns = backend.alloc_floats(self.rewards.len()).unwrap();
        let (terminated, truncated) = (&terminated, &truncated);
        backend.reward_to_go(&op, RewardToGoOperands { rewards: &rewards, terminated, truncated, returns: &mut returns })?;
        backend.read_floats(&returns, 0, self.rewards.len())
    }

    fn all<B: AdvantageOps>(&self, backend: &mut B, gamma: f64, gae_lambda: f64) -> Result<[Vec<f32>; 6]> {
        let (gae, cleanrl) = (self.gae(backend, gamma, gae_lambda)?, self.gae_cleanrl(backend, gamma, gae_lambda)?);
        let (discounted, to_go) = (self.discounted_returns(backend, gamma)?, self.reward_to_go(backend, gamma)?);
        Ok([gae.advantages, gae.returns, cleanrl.advantages, cleanrl.returns, discounted, to_go])
    }
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    let close = actual.iter().zip(expected).all(|(a, e)| (a - e).abs() <= tolerance);
    assert!(close, "{actual:?} instead of {expected:?}");
}

fn gives_the_numbers_of_rlax<B: AdvantageOps>(backend: &mut B) {
    let rollout = Rollout::new(1, &[0.0, 0.0, 1.0, 0.0, -0.5], &[1.0, 4.0, -3.0, -2.0, -1.0], &[-1.0]);
    // rlax prints the first row with four or five digits.
    for (gae_lambda, expected, digits) in
        [(1.0, [-1.45118, -4.4557, 2.5396, 0.5249, -0.49], 6e-5), (0.7, [-0.676979, -5.248167, 2.4846, 0.6704, -0.49], 4e-5)]
    {
        assert_close(&rollout.gae(backend, 0.99, gae_lambda).unwrap().advantages, &expected, digits);
        assert_close(&rollout.gae_cleanrl(backend, 0.99, gae_lambda).unwrap().advantages, &expected, digits);
    }
}

fn gives_the_numbers_of_rl_triton<B: AdvantageOps>(backend: &mut B) {
    let without_end = Rollout::new(1, &[1.0, 2.0, 3.0], &[0.0; 3], &[2.0]);
    assert_eq!(without_end.gae(backend, 1.0, 1.0).unwrap().advantages, [8.0, 7.0, 5.0]);
    assert_eq!(without_end.discounted_returns(backend, 1.0).unwrap(), [8.0, 7.0, 5.0]);
    assert_eq!(without_end.reward_to_go(backend, 1.0).unwrap(), [6.0, 5.0, 3.0]);
    let mut with_end = Rollout::new(1, &[1.0, 2.0, 3.0], &[0.0; 3], &[0.0]);
    with_end.terminated[1] = 1;
    for [advantages, _, cleanrl, _, discounted, to_go] in [with_end.all(backend, 1.0, 1.0).unwrap()] {
        for result in [advantages, cleanrl, discounted, to_go] {
            assert_eq!(result, [3.0, 2.0, 3.0]);
        }
    }
}

fn with_lambda_one_advantages_are_returns_less_values<B: AdvantageOps>(backend: &mut B) {
    let rollout = Rollout::draw(2, 300, 3, 0.03);
    let returns = rollout.discounted_returns(backend, 0.99).unwrap();
    let gae = rollout.gae(backend, 0.99, 1.0).unwrap();
    assert_close(&gae.returns, &returns, 1e-4);
}

fn with_lambda_zero_advantages_are_the_deltas<B: AdvantageOps>(backend: &mut B) {
    // gamma = 1 and small integers: exact.
    let rollout = Rollout::new(2, &[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0], &[50.0, 60.0]);
    assert_eq!(rollout.gae(backend, 1.0, 0.0).unwrap().advantages, [21.0, 22.0, 23.0, 24.0]);
    assert_eq!(rollout.gae_cleanrl(backend, 1.0, 0.0).unwrap().advantages, [21.0, 22.0, 23.0, 24.0]);
    assert_eq!(rollout.gae(backend, 0.0, 1.0).unwrap().advantages, [-9.0, -18.0, -27.0, -36.0]);
    assert_eq!(rollout.reward_to_go(backend, 0.0).unwrap(), rollout.rewards);
}

fn a_termination_drops_and_a_truncation_keeps_the_next_value<B: AdvantageOps>(backend: &mut B) {
    // Columns: terminated, truncated, both (a termination), neither; at the last step and before it.
    let mut rollout = Rollout::new(4, &[1.0; 8], &[0.0; 8], &[100.0; 4]);
    rollout.next_values = vec![10.0, 10.0, 10.0, 0.0, 20.0, 20.0, 20.0, 100.0];
    rollout.terminated = vec![1, 0, 1, 0, 1, 0, 1, 0];
    rollout.truncated = vec![0, 1, 1, 0, 0, 1, 1, 0];
    let expected = [1.0, 11.0, 1.0, 102.0, 1.0, 21.0, 1.0, 101.0];
    assert_eq!(rollout.gae(backend, 1.0, 1.0).unwrap().advantages, expected);
    assert_eq!(rollout.discounted_returns(backend, 1.0).unwrap(), expected);
    assert_eq!(rollout.reward_to_go(backend, 1.0).unwrap(), [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
    let cleanrl = rollout.gae_cleanrl(backend, 1.0, 1.0).unwrap().advantages;
    assert_eq!(cleanrl, [1.0, 1.0, 1.0, 102.0, 1.0, 1.0, 1.0, 101.0], "an end of any kind is a termination");
}

fn nothing_behind_an_end_leaks<B: AdvantageOps>(backend: &mut B) {
    for poison in [f32::NAN, f32::INFINITY] {
        // Long enough that the end and the poison lie in different lanes and blocks of a scan.
        for (steps, end) in [(4, 1), (300, 8), (5000, 2047), (5000, 4000)] {
            let mut rollout = Rollout::draw(3, steps, 1, 0.0);
            rollout.terminated[end] = 1;
            let clean = rollout.all(backend, 0.99, 0.95).unwrap();
            rollout.next_values[end] = poison;
            rollout.rewards[end + 1..].fill(poison);
            rollout.values[end + 1..].fill(poison);
            rollout.next_value[0] = poison;
            let poisoned = rollout.all(backend, 0.99, 0.95).unwrap();
            for (clean, poisoned) in clean.iter().zip(&poisoned) {
                assert_eq!(clean[..=end], poisoned[..=end], "{poison} behind step {end} of {steps}");
            }
        }
    }
}

fn nothing_leaks_where_nothing_is_discounted_in<B: AdvantageOps>(backend: &mut B) {
    let mut rollout = Rollout::new(1, &[1.0, 2.0, f32::NAN], &[1.0, 1.0, 1.0], &[1.0]);
    rollout.next_values = vec![1.0; 3];
    assert_eq!(rollout.gae(backend, 1.0, 0.0).unwrap().advantages[..2], [1.0, 2.0]);
    assert_eq!(rollout.reward_to_go(backend, 0.0).unwrap()[..2], [1.0, 2.0]);
}

fn both_forms_agree_where_nothing_is_truncated<B: AdvantageOps>(backend: &mut B) {
    let mut rollout = Rollout::draw(4, 130, 5, 0.0);
    rollout.terminated = Draw::new(4).flags(130 * 5, 0.05);
    let (gae, cleanrl) = (rollout.gae(backend, 0.9, 0.8).unwrap(), rollout.gae_cleanrl(backend, 0.9, 0.8).unwrap());
    assert_eq!(gae.advantages, cleanrl.advantages);
    assert_eq!(gae.returns, cleanrl.returns);
}

fn integers_come_out_exact<B: AdvantageOps>(backend: &mut B) {
    // Rewards 0..7 and gamma = lambda = 1: every partial sum is an integer below 2^24, so any order of summation gives it.
    let (steps, envs) = (3000, 3);
    let rewards: Vec<f32> = (0..steps * envs).map(|i| (i % 7) as f32).collect();
    let rollout = Rollout::new(envs, &rewards, &vec![0.0; steps * envs], &[5.0; 3]);
    let mut expected = rewards.clone();
    for i in (0..steps * envs).rev() {
        expected[i] += expected.get(i + envs).copied().unwrap_or(5.0);
    }
    assert_eq!(rollout.gae(backend, 1.0, 1.0).unwrap().advantages, expected);
    assert_eq!(rollout.gae_cleanrl(backend, 1.0, 1.0).unwrap().returns, expected);
    assert_eq!(rollout.discounted_returns(backend, 1.0).unwrap(), expected);
}

const VARIANTS: [Variant; 2] = [Variant::Plain, Variant::Fast];

/// A round of carries takes 2048 blocks, which are 2^19 steps of eight environments.
fn two_rounds_of_carries() -> Rollout {
    Rollout::draw(9, (1 << 19) + 700, 8, 0.0)
}

#[test]
fn grids_beyond_65535_workgroups_fold() {
    for (variant, envs) in [(Variant::Plain, 64 * 65_536 + 1), (Variant::Fast, 256 * 65_536 + 1)] {
        on_gpu(variant, |gpu| {
            // One step: the return is the reward.
            let rollout = Draw::new(6).floats(envs, 1.0);
            let rewards = gpu.upload_floats(&rollout).unwrap();
            let flags = gpu.alloc_words(envs).unwrap();
            let mut returns = gpu.alloc_floats(envs).unwrap();
            let (terminated, truncated) = (&flags, &flags);
            let operands = RewardToGoOperands { rewards: &rewards, terminated, truncated, returns: &mut returns };
            gpu.reward_to_go(&DiscountedReturns { steps: 1, envs, gamma: 0.9 }, operands).unwrap();
            assert!(gpu.read_floats(&returns, 0, envs).unwrap() == rollout, "{variant:?}");
        });
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    for variant in VARIANTS {
        on_gpu(variant, |gpu| {
            for (steps, envs) in [(10_000, 3), (600, 250)] {
                let rollout = Rollout::draw(7, steps, envs, 0.001);
                assert_eq!(rollout.all(gpu, 0.99, 0.95).unwrap(), rollout.all(gpu, 0.99, 0.95).unwrap());
            }
        });
    }
}

#[test]
fn the_tolerance_knows_wrong_from_rounded() {
    let mut both = CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new());
    Rollout::draw(8, 2000, 3, 0.02).all(&mut both, 0.99, 0.95).unwrap();
    // A typical error uses a part of what is allowed; what is allowed is a few roundings of the sums' magnitude.
    for (tensor, worst) in both.worst() {
        assert!(worst.allowed < 2e-3, "{tensor:?}: {worst:?}");
    }
}

/// Each fault is planted alone; the operation it breaks has to be named.
#[test]
fn wrong_kernels_are_caught() {
    let source = include_str!("../shaders/advantage.wgsl");
    for (variant, operation, from, to) in [
        (Variant::Plain, "gae", "continues = !terminates && !truncates;", "continues = !terminates;"),
        (Variant::Plain, "gae", "bootstraps = !terminates;", "bootstraps = continues;"),
        (Variant::Plain, "gae_cleanrl", "select(terminated[next],", "select(terminated[i],"),
        (Variant::Plain, "gae_cleanrl", "truncated[env], is_last)", "0u, is_last)"),
        (Variant::Plain, "discounted_returns", "!terminates && (truncates || is_last)", "!terminates && truncates"),
        (Variant::Plain, "gae", "returns[i] = x + step.value;", "returns[i] = x;"),
        // Composition does not commute: the faults that a scan of sums would not notice.
        (Variant::Fast, "gae", "vec2<f32>(apply(earlier, later.x)", "vec2<f32>(apply(later, earlier.x)"),
        (
            Variant::Fast,
            "gae",
            "compose(composed, lane_maps[",
            "compose(lane_maps[half + local + reach], composed); _ = (lane_maps[",
        ),
        (Variant::Fast, "gae", "= vec2<f32>(x, 0.0);", "= vec2<f32>(apply(map, x), 0.0);"),
        (Variant::Fast, "gae", "enters_block = maps_of_blocks", "enters_block = 0.99 * maps_of_blocks"),
        (
            Variant::Fast,
            "gae",
            "enters_round = apply(lane_maps[half + local % tile_envs()], enters_round);",
            "enters_round = 0.0;",
        ),
        (Variant::Fast, "gae", "tile_envs()], enters_block);", "tile_envs()], enters_block); enters_block = 0.0;"),
        // Through a whole block next to nothing comes with GAE's weights.
        (
            Variant::Fast,
            "discounted_returns",
            "enters_block = apply(lane_maps[half + local % tile_envs()], enters_block);",
            "enters_block = lane_maps[half + local % tile_envs()].x;",
        ),
    ] {
        let Some(mut both) = checked() else { return };
        both.a.variant = variant;
        both.a.context.replace_shader("advantage", plant(source, from, to));
        let rollout = match variant {
            Variant::Plain => Rollout::draw(9, 10, 20, 0.3),
            _ if to.starts_with("enters_round") => two_rounds_of_carries(),
            _ if from.contains("tile_envs()], enters_block);") => Rollout::draw(9, 600, 250, 0.002),
            _ => Rollout::draw(9, 5000, 2, 0.002),
        };
        match rollout.all(&mut both, 0.99, 0.95).map(drop) {
            Err(Error::Mismatch(mismatch)) => assert_eq!(mismatch.operation, operation, "{to}: {mismatch}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn an_end_that_multiplies_by_zero_is_caught() {
    let Some(mut both) = checked() else { return };
    for (variant, from, to) in [
        (Variant::Plain, "select(map.x, map.x + map.y * x, map.y != 0.0)", "map.x + map.y * x"),
        (Variant::Fast, "select(map.x, map.x + map.y * x, map.y != 0.0)", "map.x + map.y * x"),
        (Variant::Plain, "select(0.0, params.gamma * bootstrap, bootstraps)", "params.gamma * bootstrap * f32(bootstraps)"),
    ] {
        both.a.variant = variant;
        both.a.context.replace_shader("advantage", plant(include_str!("../shaders/advantage.wgsl"), from, to));
        let mut rollout = Rollout::draw(10, 20, 1, 0.0);
        rollout.terminated[4] = 1;
        rollout.next_values[4] = f32::INFINITY;
        rollout.rewards[5] = f32::INFINITY;
        let mismatch = expect_mismatch(rollout.gae(&mut both, 0.99, 0.95).map(drop));
        assert_eq!((mismatch.operation, mismatch.tensor), ("gae", "advantages"));
        assert!(mismatch.value.is_nan() && mismatch.reference.is_finite(), "{mismatch}");
    }
}

#[test]
fn names_the_argument_that_does_not_fit() {
    fn check<B: AdvantageOps>(backend: &mut B) {
        let fits = Gae { steps: 3, envs: 2, gamma: 0.99, gae_lambda: 0.95 };
        let lens = [6, 6, 6, 6, 6, 6, 6];
        let gae = |backend: &mut B, op: &Gae, [r, v, nv, term, trunc, adv, ret]: [usize; 7]| {
            let [r, v, nv, mut adv, mut ret] = [r, v, nv, adv, ret].map(|len| backend.alloc_floats(len).unwrap());
            let [term, trunc] = [term, trunc].map(|len| backend.alloc_words(len).unwrap());
            let (rewards, values, next_values, terminated, truncated) = (&r, &v, &nv, &term, &trunc);
            let (advantages, returns) = (&mut adv, &mut ret);
            backend.gae(op, GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns })
        };
        gae(backend, &fits, lens).unwrap();
        let expect = |result: Result<()>, argument: &str| match result {
            Err(Error::Shape { argument: named, .. } | Error::InvalidValue { argument: named, .. }) => {
                assert_eq!(named, argument)
            }
            other => panic!("{argument}: {other:?}"),
        };
        let names = ["rewards", "values", "next_values", "terminated", "truncated", "advantages", "returns"];
        for (i, name) in names.into_iter().enumerate() {
            let mut lens = lens;
            lens[i] = 5;
            expect(gae(backend, &fits, lens), name);
        }
        for (op, argument) in [
            (Gae { steps: 0, ..fits }, "steps"),
            (Gae { envs: 0, ..fits }, "envs"),
            (Gae { steps: 1 << 31, ..fits }, "rewards"),
            (Gae { steps: usize::MAX, envs: usize::MAX, ..fits }, "steps"),
            (Gae { gamma: 1.01, ..fits }, "gamma"),
            (Gae { gamma: f64::NAN, ..fits }, "gamma"),
            (Gae { gae_lambda: -0.1, ..fits }, "gae_lambda"),
            (Gae { gae_lambda: f64::INFINITY, ..fits }, "gae_lambda"),
        ] {
            expect(gae(backend, &op, lens), argument);
        }
        let cleanrl = |backend: &mut B, next_value: usize, next_done: usize| {
            let [r, v, dones, mut adv, mut ret] = [6; 5].map(|len| backend.alloc_floats(len).unwrap());
            let [next_value, next_done] = [next_value, next_done].map(|len| backend.alloc_floats(len).unwrap());
            let (rewards, values, dones, next_value, next_done) = (&r, &v, &dones, &next_value, &next_done);
            let (advantages, returns) = (&mut adv, &mut ret);
            let operands = CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns };
            backend.gae_cleanrl(&fits, operands)
        };
        expect(cleanrl(backend, 1, 2), "next_value");
        expect(cleanrl(backend, 2, 1), "next_done");
        let returns = |backend: &mut B, gamma: f64, next_value: usize, out: usize| {
            let [r, nv] = [6; 2].map(|len| backend.alloc_floats(len).unwrap());
            let [next_value, mut out] = [next_value, out].map(|len| backend.alloc_floats(len).unwrap());
            let flags = backend.alloc_words(6).unwrap();
            let op = DiscountedReturns { steps: 3, envs: 2, gamma };
            let (rewards, next_values, next_value) = (&r, &nv, &next_value);
            let (terminated, truncated, returns) = (&flags, &flags, &mut out);
            backend
                .discounted_returns(&op, ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns })?;
            backend.reward_to_go(&op, RewardToGoOperands { rewards, terminated, truncated, returns: &mut out })
        };
        returns(backend, 0.9, 2, 6).unwrap();
        expect(returns(backend, 0.9, 1, 6), "next_value");
        expect(returns(backend, 0.9, 2, 5), "returns");
        expect(returns(backend, -0.9, 2, 6), "gamma");
    }
    check(&mut Cpu::<f32>::new());
    on_gpu(Variant::Fast, check);
}

/// The definition: A_t = sum over k of (gamma lambda)^k delta_{t+k}, up to and including the next end.
fn gae_by_definition(rollout: &Rollout, gamma: f64, gae_lambda: f64) -> Vec<f64> {
    let ends = |i: usize| rollout.terminated[i] | rollout.truncated[i] != 0;
    let delta = |i: usize| {
        let next = if rollout.terminated[i] != 0 { 0.0 } else { f64::from(rollout.next_values[i]) };
        f64::from(rollout.rewards[i]) + gamma * next - f64::from(rollout.values[i])
    };
    let rest_of = |i: usize| (i..rollout.rewards.len()).step_by(rollout.envs);
    (0..rollout.rewards.len())
        .map(|i| {
            let until = rest_of(i).find(|&j| ends(j)).unwrap_or(usize::MAX);
            rest_of(i).take_while(|&j| j <= until).zip(0..).map(|(j, k)| (gamma * gae_lambda).powi(k) * delta(j)).sum()
        })
        .collect()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn every_advantage_is_the_discounted_sum_of_deltas_up_to_the_next_end(
        (steps, envs, seed) in (1usize..40, 1usize..5, 0u64..1 << 32),
        ends in prop_oneof![Just(0.0), Just(0.1), Just(0.5), Just(1.0)],
        gamma in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0],
        gae_lambda in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0],
    ) {
        let rollout = Rollout::draw(seed, steps, envs, ends);
        let actual = rollout.gae(&mut Cpu::<f64>::new(), gamma, gae_lambda).unwrap().advantages;
        for (actual, expected) in actual.iter().zip(gae_by_definition(&rollout, gamma, gae_lambda)) {
            prop_assert!((f64::from(*actual) - expected).abs() <= 1e-7 * (1.0 + expected.abs()), "{actual} instead of {expected}");
        }
    }
}
