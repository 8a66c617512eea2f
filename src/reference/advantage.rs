//! Twin of `shaders/advantage.wgsl`.

use std::ops::Range;

use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::kernels::advantage::{DiscountedReturns, Gae};
use crate::real::Real;

/// Elements of a rollout from which on threads pay: about a tenth of a millisecond of work.
const PARALLEL_FROM: usize = 1 << 16;
/// Environments a thread takes at least: two cache lines of `f32`, so that threads do not share one.
const LEAST_ENVS: usize = 32;
/// Environments a thread takes at most: what it carries from step to step then stays in its nearest cache.
const MOST_ENVS: usize = 2048;

/// δ_t = r_t + γ·next_values_t·(1 − terminated_t) − v_t;  A_t = δ_t + γλ·(1 − done_t)·A_{t+1};  return = A + v.
pub fn gae<T: Real>(
    op: &Gae,
    rewards: &[T],
    values: &[T],
    next_values: &[T],
    terminated: &[u32],
    truncated: &[u32],
    advantages: &mut [T],
    returns: &mut [T],
) {
    let (gamma, decay) = (op.gamma, op.decay());
    if op.envs == 1 {
        return backwards_alone(op.steps, decay, values, [advantages, returns], |steps, deltas, ends| {
            let n = deltas.len();
            let [rewards, values, next_values] = [rewards, values, next_values].map(|column| &column[steps.start..][..n]);
            let [terminated, truncated] = [terminated, truncated].map(|column| &column[steps.start..][..n]);
            let ends = &mut ends[..n];
            for t in 0..n {
                let bootstrap = if terminated[t] != 0 { 0.0 } else { gamma * next_values[t].f64() };
                deltas[t] = rewards[t].f64() + bootstrap - values[t].f64();
                ends[t] = terminated[t] | truncated[t] != 0;
            }
        });
    }
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        |step| {
            let (start, later) = (step.start, step.later);
            let n = later.len();
            let [rewards, values, next_values] = [rewards, values, next_values].map(|matrix| &matrix[start..][..n]);
            let [terminated, truncated] = [terminated, truncated].map(|matrix| &matrix[start..][..n]);
            let [advantages, returns] = step.outputs.map(|row| &mut row[..n]);
            for env in 0..n {
                let bootstrap = if terminated[env] != 0 { 0.0 } else { gamma * next_values[env].f64() };
                let delta = rewards[env].f64() + bootstrap - values[env].f64();
                later[env] = discounted(delta, decay, later[env], terminated[env] | truncated[env] != 0);
                advantages[env] = T::of(later[env]);
                returns[env] = T::of(later[env] + values[env].f64());
            }
        },
    );
}

/// [`gae`] with terminated_t = done_t = dones_{t+1} and next_values_t = v_{t+1}; at the last step next_done and next_value.
pub fn gae_cleanrl<T: Real>(
    op: &Gae,
    rewards: &[T],
    values: &[T],
    dones: &[T],
    next_value: &[T],
    next_done: &[T],
    advantages: &mut [T],
    returns: &mut [T],
) {
    let (gamma, decay) = (op.gamma, op.decay());
    if op.envs == 1 {
        return backwards_alone(op.steps, decay, values, [advantages, returns], |steps, deltas, ends| {
            let n = deltas.len();
            // The last step's successor is in buffers of its own.
            let inner = n.min(op.steps - 1 - steps.start);
            let [rewards, values_now] = [rewards, values].map(|column| &column[steps.start..][..n]);
            let [next_values, dones] = [values, dones].map(|column| &column[steps.start + 1..][..inner]);
            let mut set = |t: usize, next_value: T, done: T| {
                ends[t] = done != T::zero();
                let bootstrap = if ends[t] { 0.0 } else { gamma * next_value.f64() };
                deltas[t] = rewards[t].f64() + bootstrap - values_now[t].f64();
            };
            for t in 0..inner {
                set(t, next_values[t], dones[t]);
            }
            if inner < n {
                set(inner, next_value[0], next_done[0]);
            }
        });
    }
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        |step| {
            let (start, later) = (step.start, step.later);
            let n = later.len();
            let [next_values, dones] = match start + op.envs < op.len() {
                true => [values, dones].map(|matrix| &matrix[start + op.envs..][..n]),
                false => [next_value, next_done].map(|row| &row[step.first_env..][..n]),
            };
            let [rewards, values] = [rewards, values].map(|matrix| &matrix[start..][..n]);
            let [advantages, returns] = step.outputs.map(|row| &mut row[..n]);
            for env in 0..n {
                let done = dones[env] != T::zero();
                let bootstrap = if done { 0.0 } else { gamma * next_values[env].f64() };
                let delta = rewards[env].f64() + bootstrap - values[env].f64();
                later[env] = discounted(delta, decay, later[env], done);
                advantages[env] = T::of(later[env]);
                returns[env] = T::of(later[env] + values[env].f64());
            }
        },
    );
}

/// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), G_T = next_value.
pub fn discounted_returns<T: Real>(
    op: &DiscountedReturns,
    rewards: &[T],
    next_values: &[T],
    next_value: &[T],
    terminated: &[u32],
    truncated: &[u32],
    returns: &mut [T],
) {
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |env| next_value[env].f64(),
        |step| {
            let (start, later) = (step.start, step.later);
            let n = later.len();
            let [rewards, next_values] = [rewards, next_values].map(|matrix| &matrix[start..][..n]);
            let [terminated, truncated] = [terminated, truncated].map(|matrix| &matrix[start..][..n]);
            let [returns] = step.outputs.map(|row| &mut row[..n]);
            for env in 0..n {
                let bootstraps = truncated[env] != 0 && terminated[env] == 0;
                let bootstrap = if bootstraps { gamma * next_values[env].f64() } else { 0.0 };
                let now = rewards[env].f64() + bootstrap;
                later[env] = discounted(now, gamma, later[env], terminated[env] | truncated[env] != 0);
                returns[env] = T::of(later[env]);
            }
        },
    );
}

/// G_t = r_t + γ·(1 − done_t)·G_{t+1}, G_T = 0.
pub fn reward_to_go<T: Real>(op: &DiscountedReturns, rewards: &[T], terminated: &[u32], truncated: &[u32], returns: &mut [T]) {
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |_| 0.0,
        |step| {
            let (start, later) = (step.start, step.later);
            let n = later.len();
            let rewards = &rewards[start..][..n];
            let [terminated, truncated] = [terminated, truncated].map(|matrix| &matrix[start..][..n]);
            let [returns] = step.outputs.map(|row| &mut row[..n]);
            for env in 0..n {
                later[env] = discounted(rewards[env].f64(), gamma, later[env], terminated[env] | truncated[env] != 0);
                returns[env] = T::of(later[env]);
            }
        },
    );
}

/// now + decay·later, where `later` does not enter at all (not even as NaN·0) at an end or when `decay` is 0.
#[inline(always)]
fn discounted(now: f64, decay: f64, later: f64, ends: bool) -> f64 {
    if ends || decay == 0.0 { now } else { now + decay * later }
}

/// Steps of a single environment whose δ are made at once.
const STRETCH: usize = 256;

/// A single environment has no neighbours to be vectorised with: its δ and ends are made for a stretch of steps, then only the recurrence
/// goes from step to step, from the last to the first. Outputs are advantages and returns.
fn backwards_alone<T: Real>(
    steps: usize,
    decay: f64,
    values: &[T],
    [advantages, returns]: [&mut [T]; 2],
    deltas_and_ends: impl Fn(Range<usize>, &mut [f64], &mut [bool]),
) {
    let (mut deltas, mut ends) = ([0.0; STRETCH], [false; STRETCH]);
    let mut later = 0.0;
    vectorised!({
        for start in (0..steps).step_by(STRETCH).rev() {
            let n = STRETCH.min(steps - start);
            let (deltas, ends) = (&mut deltas[..n], &mut ends[..n]);
            deltas_and_ends(start..start + n, deltas, ends);
            for (delta, &ends) in deltas.iter_mut().zip(&*ends).rev() {
                later = discounted(*delta, decay, later, ends);
                *delta = later;
            }
            let outputs = advantages[start..].iter_mut().zip(&mut returns[start..]);
            for ((advantage, output), (&later, value)) in outputs.zip(deltas.iter().zip(&values[start..])) {
                *advantage = T::of(later);
                *output = T::of(later + value.f64());
            }
        }
    });
}

/// One step of neighbouring environments. The steps slice everything to `later.len()`, so that the compiler sees equal lengths and
/// vectorises their loops.
struct Step<'a, T, const OUTPUTS: usize> {
    /// Where the step starts in a buffer `[T, N]`.
    start: usize,
    first_env: usize,
    /// Their part of the outputs' rows.
    outputs: [&'a mut [T]; OUTPUTS],
    /// In: the result of the later step. Out: of this one.
    later: &'a mut [f64],
}

/// Runs `step` from the last step to the first, on blocks of environments in parallel where the rollout is large.
fn backwards<T: Real, const OUTPUTS: usize>(
    steps: usize,
    envs: usize,
    mut outputs: [&mut [T]; OUTPUTS],
    initial: impl Fn(usize) -> f64 + Sync,
    step: impl Fn(Step<'_, T, OUTPUTS>) + Sync,
) {
    let block = match steps * envs >= PARALLEL_FROM {
        true => envs.div_ceil(rayon::current_num_threads()).next_multiple_of(LEAST_ENVS).min(MOST_ENVS),
        false => envs,
    };
    if block >= envs {
        let mut later: Vec<f64> = (0..envs).map(initial).collect();
        vectorised!({
            for start in (0..steps).rev().map(|t| t * envs) {
                let outputs = outputs.each_mut().map(|output| &mut output[start..start + envs]);
                step(Step { start, first_env: 0, outputs, later: &mut later });
            }
        });
        return;
    }
    let mut blocks: Vec<(Range<usize>, Vec<_>)> =
        (0..envs.div_ceil(block)).map(|b| (b * block..envs.min((b + 1) * block), Vec::with_capacity(steps))).collect();
    for _ in 0..steps {
        for (envs, rows) in &mut blocks {
            rows.push(outputs.each_mut().map(|output| take_front(output, envs.len())));
        }
    }
    blocks.into_par_iter().for_each(|(block, rows)| {
        let mut later: Vec<f64> = block.clone().map(&initial).collect();
        for (t, outputs) in rows.into_iter().enumerate().rev() {
            let (start, first_env) = (t * envs + block.start, block.start);
            vectorised!(step(Step { start, first_env, outputs, later: &mut later }));
        }
    });
}

fn take_front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(slice).split_at_mut(len);
    *slice = rest;
    front
}
