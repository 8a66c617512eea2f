//! Twin of `shaders/advantage.wgsl`: recursions over a rollout `[T, N]`, from the last step to the first.

use crate::kernels::advantage::{CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands};
use crate::real::Real;

/// δ_t = r_t + γ·next_values_t·(1 − terminated_t) − v_t;  A_t = δ_t + γλ·(1 − done_t)·A_{t+1};  return = A + v.
pub fn gae<T: Real>(op: &Gae, operands: GaeOperands<'_, Vec<T>, Vec<u32>>) {
    let GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns } = operands;
    backwards(
        op.steps,
        op.envs,
        op.decay(),
        |_| 0.0,
        |i, later| {
            let bootstrap = if terminated[i] != 0 { 0.0 } else { op.gamma * next_values[i].f64() };
            let advantage = rewards[i].f64() + bootstrap - values[i].f64() + later(terminated[i] | truncated[i] != 0);
            advantages[i] = T::of(advantage);
            returns[i] = T::of(advantage + values[i].f64());
            advantage
        },
    );
}

/// [`gae`] with terminated_t = done_t = dones_{t+1} and next_values_t = v_{t+1}; at the last step next_done and next_value.
pub fn gae_cleanrl<T: Real>(op: &Gae, operands: CleanRlGaeOperands<'_, Vec<T>>) {
    let CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns } = operands;
    backwards(
        op.steps,
        op.envs,
        op.decay(),
        |_| 0.0,
        |i, later| {
            let (next_value, done) = match i + op.envs {
                next if next < op.len() => (values[next], dones[next]),
                next => (next_value[next - op.len()], next_done[next - op.len()]),
            };
            let done = done != T::zero();
            let bootstrap = if done { 0.0 } else { op.gamma * next_value.f64() };
            let advantage = rewards[i].f64() + bootstrap - values[i].f64() + later(done);
            advantages[i] = T::of(advantage);
            returns[i] = T::of(advantage + values[i].f64());
            advantage
        },
    );
}

/// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), G_T = next_value.
pub fn discounted_returns<T: Real>(op: &DiscountedReturns, operands: ReturnsOperands<'_, Vec<T>, Vec<u32>>) {
    let ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns } = operands;
    backwards(
        op.steps,
        op.envs,
        op.gamma,
        |env| next_value[env].f64(),
        |i, later| {
            let bootstraps = truncated[i] != 0 && terminated[i] == 0;
            let bootstrap = if bootstraps { op.gamma * next_values[i].f64() } else { 0.0 };
            let sum = rewards[i].f64() + bootstrap + later(terminated[i] | truncated[i] != 0);
            returns[i] = T::of(sum);
            sum
        },
    );
}

/// G_t = r_t + γ·(1 − done_t)·G_{t+1}, G_T = 0.
pub fn reward_to_go<T: Real>(op: &DiscountedReturns, operands: RewardToGoOperands<'_, Vec<T>, Vec<u32>>) {
    let RewardToGoOperands { rewards, terminated, truncated, returns } = operands;
    backwards(
        op.steps,
        op.envs,
        op.gamma,
        |_| 0.0,
        |i, later| {
            let sum = rewards[i].f64() + later(terminated[i] | truncated[i] != 0);
            returns[i] = T::of(sum);
            sum
        },
    );
}

/// Calls `step(i, later)` for each i = t·N + n, latest first. `step` returns its result x_t, and `later(done)` is what it takes over from
/// the step after: decay·x_{t+1}, or 0 where the episode is done or nothing is discounted in, even if x_{t+1} is not a number.
fn backwards(
    steps: usize,
    envs: usize,
    decay: f64,
    initial: impl Fn(usize) -> f64,
    mut step: impl FnMut(usize, &dyn Fn(bool) -> f64) -> f64,
) {
    for env in 0..envs {
        let mut x = initial(env);
        for t in (0..steps).rev() {
            x = step(t * envs + env, &|done| if done || decay == 0.0 { 0.0 } else { decay * x });
        }
    }
}
