//! Advantages, returns, and their normalisation.

use super::Problem;
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::advantage::{CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands};
use crate::kernels::normalize::{EpsilonMode, Normalize};

/// GAE in both conventions, discounted returns and reward-to-go. Rollout tensors are `[T, N]`.
pub(super) fn gae<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (steps, envs) = (file.size("T")?, file.size("N")?);
    let gamma = file.number("gamma")?;
    // Before anything is sized by them.
    let rewards = problem.input("rewards", &[steps, envs])?;
    if file.wants(&["out.delta", "out.advantages", "out.returns"]) {
        by_transition(problem, &Gae { steps, envs, gamma, gae_lambda: file.number("lam")? }, &rewards)?;
    }
    if file.wants(&["out.cleanrl_advantages", "out.cleanrl_returns"]) {
        by_episode_start(problem, &Gae { steps, envs, gamma, gae_lambda: file.number("lam")? }, &rewards)?;
    }
    if file.wants(&["out.discounted_returns", "out.reward_to_go"]) {
        sums_of_rewards(problem, &DiscountedReturns { steps, envs, gamma }, &rewards)?;
    }
    Ok(())
}

fn by_transition<B: Backend>(problem: &mut Problem<'_, B>, op: &Gae, rewards: &B::Floats) -> Result<()> {
    let shape = [op.steps, op.envs];
    let [values, next_values] = [problem.input("values", &shape)?, problem.input("next_values", &shape)?];
    let [terminated, truncated] = [problem.flags("terminated", &shape)?, problem.flags("truncated", &shape)?];
    let [mut advantages, mut returns] = [problem.room(op.steps * op.envs)?, problem.room(op.steps * op.envs)?];
    // Without λ nothing is carried from step to step: the advantages are the temporal differences.
    for (gae_lambda, names) in [(0.0, &["delta"][..]), (op.gae_lambda, &["advantages", "returns"])] {
        let op = Gae { gae_lambda, ..*op };
        let Problem { backend, .. } = problem;
        let operands = GaeOperands {
            rewards,
            values: &values,
            next_values: &next_values,
            terminated: &terminated,
            truncated: &truncated,
            advantages: &mut advantages,
            returns: &mut returns,
        };
        backend.gae(&op, operands)?;
        for (name, result) in names.iter().zip([&advantages, &returns]) {
            problem.keep(format!("out.{name}"), result)?;
        }
    }
    Ok(())
}

fn by_episode_start<B: Backend>(problem: &mut Problem<'_, B>, op: &Gae, rewards: &B::Floats) -> Result<()> {
    let shape = [op.steps, op.envs];
    let [values, next_value] = [problem.input("values", &shape)?, problem.input("next_value", &shape[1..])?];
    let [dones, next_done] = [problem.f32_flags("dones", &shape)?, problem.f32_flags("next_done", &shape[1..])?];
    let [mut advantages, mut returns] = [problem.room(op.steps * op.envs)?, problem.room(op.steps * op.envs)?];
    let Problem { backend, .. } = problem;
    let operands = CleanRlGaeOperands {
        rewards,
        values: &values,
        dones: &dones,
        next_value: &next_value,
        next_done: &next_done,
        advantages: &mut advantages,
        returns: &mut returns,
    };
    backend.gae_cleanrl(op, operands)?;
    problem.keep("out.cleanrl_advantages", &advantages)?;
    problem.keep("out.cleanrl_returns", &returns)
}

fn sums_of_rewards<B: Backend>(problem: &mut Problem<'_, B>, op: &DiscountedReturns, rewards: &B::Floats) -> Result<()> {
    let shape = [op.steps, op.envs];
    let [terminated, truncated] = [problem.flags("terminated", &shape)?, problem.flags("truncated", &shape)?];
    let mut returns = problem.room(op.steps * op.envs)?;
    if problem.file.wants(&["out.discounted_returns"]) {
        let [next_values, next_value] = [problem.input("next_values", &shape)?, problem.input("next_value", &shape[1..])?];
        let Problem { backend, .. } = problem;
        let operands = ReturnsOperands {
            rewards,
            next_values: &next_values,
            next_value: &next_value,
            terminated: &terminated,
            truncated: &truncated,
            returns: &mut returns,
        };
        backend.discounted_returns(op, operands)?;
        problem.keep("out.discounted_returns", &returns)?;
    }
    let (terminated, truncated) = (&terminated, &truncated);
    problem.backend.reward_to_go(op, RewardToGoOperands { rewards, terminated, truncated, returns: &mut returns })?;
    problem.keep("out.reward_to_go", &returns)
}

/// Mean, standard deviation and normalised values `[batch]`, of a sample and of a population, and the gradient of Σ w·normalised.
pub(super) fn normalisation<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (len, epsilon) = (file.size("batch")?, file.number("eps")?);
    for (ddof, suffix) in [(1, ""), (0, "_population")] {
        let mut x = problem.input("advantages", &[len])?;
        let mut moments = problem.room(Normalize::MOMENTS)?;
        let op = Normalize { len, vectors: 1, offset: 0, stride: 1, ddof, epsilon, epsilon_mode: EpsilonMode::AddToStd };
        problem.backend.normalize(&op, &mut x, &mut moments)?;
        let normalised = problem.read(&x)?;
        let moments = problem.read(&moments)?;
        let (mean, std) = (moments[0], moments[1]);
        let gradient = match ddof {
            1 if std > 0.0 && file.wants(&["grad.advantages"]) => {
                Some(gradient(&normalised, file.f32s("w", &[len])?, std, epsilon))
            }
            _ => None,
        };
        if ddof == 1 {
            problem.keep_values("out.mean", vec![mean]);
        }
        problem.keep_values(format!("out.std{suffix}"), vec![std]);
        problem.keep_values(format!("out.normalised{suffix}"), normalised);
        gradient.into_iter().for_each(|gradient| problem.keep_values("grad.advantages", gradient));
    }
    Ok(())
}

/// (w − w̄)/(σ + ε) − n·Σ w·n/((len − 1)·σ), n being the normalised values: PPO takes advantages as constants, so no kernel has this.
fn gradient(normalised: &[f64], w: &[f32], std: f64, epsilon: f64) -> Vec<f64> {
    let len = normalised.len() as f64;
    let mean_w = w.iter().copied().map(f64::from).sum::<f64>() / len;
    let weighted: f64 = normalised.iter().zip(w).map(|(n, &w)| n * f64::from(w)).sum();
    let of_std = weighted / ((len - 1.0) * std);
    normalised.iter().zip(w).map(|(n, &w)| (f64::from(w) - mean_w) / (std + epsilon) - n * of_std).collect()
}
