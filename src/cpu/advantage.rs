//! Advantages and returns: environments side by side in vectors, blocks of them on all threads; sums in f64.

use std::ops::Range;

use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::kernels::advantage::{CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands};
use crate::real::Real;
use crate::scratch::with_room;

/// Elements of a rollout from which on threads pay: about a tenth of a millisecond of work.
const PARALLEL_FROM: usize = 1 << 18;
/// Environments a thread takes at least: fewer would take no longer than cutting their part out of every row.
const LEAST_ENVS: usize = 128;
/// Environments a thread takes at most: what it carries from step to step then stays in its nearest cache.
const MOST_ENVS: usize = 2048;

/// δ_t = r_t + γ·next_values_t·(1 − terminated_t) − v_t;  A_t = δ_t + γλ·(1 − done_t)·A_{t+1};  return = A + v.
pub fn gae(op: &Gae, operands: GaeOperands<'_, Vec<f32>, Vec<u32>>) {
    let GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns } = operands;
    let (gamma, decay) = (op.gamma, op.decay());
    if op.envs == 1 {
        return backwards_alone(
            op.steps,
            decay,
            values,
            [advantages, returns],
            #[inline(always)]
            |steps, deltas, ends| {
                let n = deltas.len();
                let [rewards, values, next_values] = [rewards, values, next_values].map(|column| &column[steps.start..][..n]);
                let [terminated, truncated] = [terminated, truncated].map(|column| &column[steps.start..][..n]);
                let ends = &mut ends[..n];
                for t in 0..n {
                    let bootstrap = unless(terminated[t] != 0, gamma * next_values[t].f64(), 0.0);
                    deltas[t] = rewards[t].f64() + bootstrap - values[t].f64();
                    ends[t] = terminated[t] | truncated[t] != 0;
                }
            },
        );
    }
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        #[inline(always)]
        |step| {
            let inputs = [rewards, values, next_values].map(|matrix| &matrix[step.start..]);
            let flags = [terminated, truncated].map(|matrix| &matrix[step.start..]);
            let [advantages, returns] = step.outputs;
            advantages_and_returns(
                decay,
                inputs,
                flags,
                #[inline(always)]
                |[reward, value, next_value], [terminated, truncated]| {
                    let bootstrap = unless(terminated != 0, gamma * next_value.f64(), 0.0);
                    (reward.f64() + bootstrap - value.f64(), terminated | truncated != 0)
                },
                step.later,
                advantages,
                returns,
            );
        },
    );
}

/// [`gae`] with terminated_t = done_t = dones_{t+1} and next_values_t = v_{t+1}; at the last step next_done and next_value.
pub fn gae_cleanrl(op: &Gae, operands: CleanRlGaeOperands<'_, Vec<f32>>) {
    let CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns } = operands;
    let (gamma, decay) = (op.gamma, op.decay());
    if op.envs == 1 {
        return backwards_alone(
            op.steps,
            decay,
            values,
            [advantages, returns],
            #[inline(always)]
            |steps, deltas, ends| {
                let n = deltas.len();
                // The last step's successor is in buffers of its own.
                let inner = n.min(op.steps - 1 - steps.start);
                let [rewards, values_now] = [rewards, values].map(|column| &column[steps.start..][..n]);
                let [next_values, dones] = [values, dones].map(|column| &column[steps.start + 1..][..inner]);
                let mut set = |t: usize, next_value: f32, done: f32| {
                    ends[t] = done != 0.0;
                    let bootstrap = unless(ends[t], gamma * next_value.f64(), 0.0);
                    deltas[t] = rewards[t].f64() + bootstrap - values_now[t].f64();
                };
                for t in 0..inner {
                    set(t, next_values[t], dones[t]);
                }
                if inner < n {
                    set(inner, next_value[0], next_done[0]);
                }
            },
        );
    }
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        #[inline(always)]
        |step| {
            let [next_values, dones] = match step.start + op.envs < op.len() {
                true => [values, dones].map(|matrix| &matrix[step.start + op.envs..]),
                false => [next_value, next_done].map(|row| &row[step.first_env..]),
            };
            let inputs = [&rewards[step.start..], &values[step.start..], next_values];
            let [advantages, returns] = step.outputs;
            advantages_and_returns(
                decay,
                inputs,
                [dones; 2],
                #[inline(always)]
                |[reward, value, next_value], [done, _]| {
                    let done = done != 0.0;
                    (reward.f64() + unless(done, gamma * next_value.f64(), 0.0) - value.f64(), done)
                },
                step.later,
                advantages,
                returns,
            );
        },
    );
}

/// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), G_T = next_value.
pub fn discounted_returns(op: &DiscountedReturns, operands: ReturnsOperands<'_, Vec<f32>, Vec<u32>>) {
    let ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns } = operands;
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |env| next_value[env].f64(),
        #[inline(always)]
        |step| {
            let inputs = [rewards, next_values].map(|matrix| &matrix[step.start..]);
            let flags = [terminated, truncated].map(|matrix| &matrix[step.start..]);
            let [returns] = step.outputs;
            discounted_sums(
                gamma,
                inputs,
                flags,
                #[inline(always)]
                |[reward, next_value], [terminated, truncated]| {
                    let bootstraps = (truncated != 0) & (terminated == 0);
                    let bootstrap = unless(!bootstraps, gamma * next_value.f64(), 0.0);
                    (reward.f64() + bootstrap, terminated | truncated != 0)
                },
                step.later,
                returns,
            );
        },
    );
}

/// G_t = r_t + γ·(1 − done_t)·G_{t+1}, G_T = 0.
pub fn reward_to_go(op: &DiscountedReturns, operands: RewardToGoOperands<'_, Vec<f32>, Vec<u32>>) {
    let RewardToGoOperands { rewards, terminated, truncated, returns } = operands;
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |_| 0.0,
        #[inline(always)]
        |step| {
            let rewards = &rewards[step.start..];
            let flags = [terminated, truncated].map(|matrix| &matrix[step.start..]);
            let [returns] = step.outputs;
            discounted_sums(
                gamma,
                [rewards; 2],
                flags,
                #[inline(always)]
                |[reward, _], [terminated, truncated]| (reward.f64(), terminated | truncated != 0),
                step.later,
                returns,
            );
        },
    );
}

/// One step of neighbouring environments: `delta_and_end` is given reward, value and next value of each, and its flags.
///
/// What is written comes in slices of its own, and is indexed: the compiler then knows, without asking at every step, that nothing else
/// overlaps with it.
#[inline(always)]
fn advantages_and_returns<F: Copy>(
    decay: f64,
    [rewards, values, next_values]: [&[f32]; 3],
    [first_flags, second_flags]: [&[F]; 2],
    delta_and_end: impl Fn([f32; 3], [F; 2]) -> (f64, bool),
    later: &mut [f64],
    advantages: &mut [f32],
    returns: &mut [f32],
) {
    let n = later.len();
    let [rewards, values, next_values] = [&rewards[..n], &values[..n], &next_values[..n]];
    let [first_flags, second_flags] = [&first_flags[..n], &second_flags[..n]];
    let (advantages, returns) = (&mut advantages[..n], &mut returns[..n]);
    for env in 0..n {
        let inputs = [rewards[env], values[env], next_values[env]];
        let (delta, ends) = delta_and_end(inputs, [first_flags[env], second_flags[env]]);
        let advantage = discounted(delta, decay, later[env], ends);
        later[env] = advantage;
        advantages[env] = f32::of(advantage);
        returns[env] = f32::of(advantage + values[env].f64());
    }
}

/// Likewise for sums of rewards: `now_and_end` is given reward and next value.
#[inline(always)]
fn discounted_sums(
    gamma: f64,
    [rewards, next_values]: [&[f32]; 2],
    [terminated, truncated]: [&[u32]; 2],
    now_and_end: impl Fn([f32; 2], [u32; 2]) -> (f64, bool),
    later: &mut [f64],
    returns: &mut [f32],
) {
    let n = later.len();
    let [rewards, next_values] = [&rewards[..n], &next_values[..n]];
    let [terminated, truncated] = [&terminated[..n], &truncated[..n]];
    let returns = &mut returns[..n];
    for env in 0..n {
        let (now, ends) = now_and_end([rewards[env], next_values[env]], [terminated[env], truncated[env]]);
        let sum = discounted(now, gamma, later[env], ends);
        later[env] = sum;
        returns[env] = f32::of(sum);
    }
}

/// now + decay·later, where `later` does not enter at all (not even as NaN·0) at an end or when `decay` is 0.
#[inline(always)]
fn discounted(now: f64, decay: f64, later: f64, ends: bool) -> f64 {
    // To add −0 is to add nothing, to −0 too.
    now + unless(ends | (decay == 0.0), decay * later, -0.0)
}

/// `x`, or `otherwise` where `condition` holds. Chosen by bits: for `if` the compiler makes loads under masks, which take twice the time.
#[inline(always)]
fn unless(condition: bool, x: f64, otherwise: f64) -> f64 {
    let mask = u64::from(condition).wrapping_sub(1);
    f64::from_bits(x.to_bits() & mask | otherwise.to_bits() & !mask)
}

/// Steps of a single environment whose δ are made at once.
const STRETCH: usize = 256;

/// A single environment has no neighbours to be vectorised with: its δ and ends are made for a stretch of steps, then only the recurrence
/// goes from step to step, from the last to the first. Outputs are advantages and returns.
fn backwards_alone(
    steps: usize,
    decay: f64,
    values: &[f32],
    [advantages, returns]: [&mut [f32]; 2],
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
                // A branch, mostly predicted: each step waits for the one before it.
                later = if ends || decay == 0.0 { *delta } else { *delta + decay * later };
                *delta = later;
            }
            let outputs = advantages[start..].iter_mut().zip(&mut returns[start..]);
            for ((advantage, output), (&later, value)) in outputs.zip(deltas.iter().zip(&values[start..])) {
                *advantage = f32::of(later);
                *output = f32::of(later + value.f64());
            }
        }
    });
}

/// One step of neighbouring environments.
struct Step<'a, const OUTPUTS: usize> {
    /// Where the step starts in a buffer `[T, N]`.
    start: usize,
    first_env: usize,
    /// Their part of the outputs' rows.
    outputs: [&'a mut [f32]; OUTPUTS],
    /// In: the result of the later step. Out: of this one.
    later: &'a mut [f64],
}

/// Runs `step` from the last step to the first, on blocks of environments in parallel where the rollout is large.
fn backwards<const OUTPUTS: usize>(
    steps: usize,
    envs: usize,
    mut outputs: [&mut [f32]; OUTPUTS],
    initial: impl Fn(usize) -> f64 + Sync,
    step: impl Fn(Step<'_, OUTPUTS>) + Sync,
) {
    if steps * envs < PARALLEL_FROM || envs <= LEAST_ENVS {
        with_room(envs, |later: &mut [f64]| {
            later.iter_mut().enumerate().for_each(|(env, later)| *later = initial(env));
            vectorised!({
                for start in (0..steps).rev().map(|t| t * envs) {
                    let outputs = outputs.each_mut().map(|output| &mut output[start..start + envs]);
                    step(Step { start, first_env: 0, outputs, later });
                }
            });
        });
        return;
    }
    let block = envs.div_ceil(rayon::current_num_threads()).clamp(LEAST_ENVS, MOST_ENVS);
    let blocks = envs.div_ceil(block);
    // A block's rows, then those of the next.
    let mut rows: Vec<[&mut [f32]; OUTPUTS]> = Vec::new();
    rows.resize_with(blocks * steps, || std::array::from_fn(|_| Default::default()));
    for t in 0..steps {
        for b in 0..blocks {
            let len = block.min(envs - b * block);
            rows[b * steps + t] = outputs.each_mut().map(|output| take_front(output, len));
        }
    }
    rows.par_chunks_mut(steps).enumerate().for_each(|(b, rows)| {
        let first_env = b * block;
        with_room(block.min(envs - first_env), |later: &mut [f64]| {
            later.iter_mut().zip(first_env..).for_each(|(later, env)| *later = initial(env));
            vectorised!({
                for (t, outputs) in rows.iter_mut().enumerate().rev() {
                    let outputs = outputs.each_mut().map(|row| &mut **row);
                    step(Step { start: t * envs + first_env, first_env, outputs, later });
                }
            });
        });
    });
}

fn take_front<'a>(slice: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (front, rest) = std::mem::take(slice).split_at_mut(len);
    *slice = rest;
    front
}
