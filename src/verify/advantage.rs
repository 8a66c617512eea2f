//! Cases of [`kernels::advantage`](crate::kernels::advantage).

use super::draw::Draw;
use super::runner::Runner;
use crate::backend::AdvantageOps;
use crate::error::Result;
use crate::kernels::advantage::{DiscountedReturns, Gae};

/// `[steps, envs]`: around workgroups of 64 and 256 in both directions, and scans of several levels of blocks.
const EDGES: &[[usize; 2]] = &[
    [1, 1],
    [1, 257],
    [2, 255],
    [3, 256],
    [63, 3],
    [64, 64],
    [65, 65],
    [128, 4],
    [255, 1],
    [256, 2],
    [257, 3],
    [1025, 2],
    [513, 300],
    [65_537, 1],
];
const MOST: [usize; 2] = [3000, 40];

/// Chance that an episode ends at a step.
const END: f64 = 0.03;

pub(super) fn cases<B: AdvantageOps>(runner: &mut Runner<B>) -> Result<()> {
    for [steps, envs] in runner.shapes(EDGES, MOST) {
        let case = format!("steps {steps}, envs {envs}");
        runner.case("gae", &case, |backend, draw| {
            let op = gae(draw, steps, envs);
            gae_of_transitions(backend, &op, draw)
        })?;
        runner.case("gae_cleanrl", &case, |backend, draw| {
            let op = gae(draw, steps, envs);
            gae_as_cleanrl(backend, &op, draw)
        })?;
        runner.case("discounted_returns", &case, |backend, draw| {
            let op = DiscountedReturns { steps, envs, gamma: discount(draw) };
            discounted_returns(backend, &op, draw)
        })?;
        runner.case("reward_to_go", &case, |backend, draw| {
            let op = DiscountedReturns { steps, envs, gamma: discount(draw) };
            reward_to_go(backend, &op, draw)
        })?;
    }
    refusals(runner)
}

fn discount(draw: &mut Draw) -> f64 {
    let inside = draw.number(0.8, 1.0);
    draw.one(&[0.0, 0.99, 1.0, inside, inside, inside])
}

fn gae(draw: &mut Draw, steps: usize, envs: usize) -> Gae {
    Gae { steps, envs, gamma: discount(draw), gae_lambda: discount(draw) }
}

fn gae_of_transitions<B: AdvantageOps>(backend: &mut B, op: &Gae, draw: &mut Draw) -> Result<()> {
    let n = op.steps * op.envs;
    let mut column = || backend.upload_floats(&draw.long(n, 1.0));
    let (rewards, values, next_values) = (column()?, column()?, column()?);
    let (terminated, truncated) = (backend.upload_words(&draw.flags(n, END))?, backend.upload_words(&draw.flags(n, END))?);
    let (mut advantages, mut returns) = (backend.alloc_floats(n)?, backend.alloc_floats(n)?);
    backend.gae(op, &rewards, &values, &next_values, &terminated, &truncated, &mut advantages, &mut returns)
}

fn gae_as_cleanrl<B: AdvantageOps>(backend: &mut B, op: &Gae, draw: &mut Draw) -> Result<()> {
    let n = op.steps * op.envs;
    let flags = |draw: &mut Draw, n| draw.flags(n, END).iter().map(|&flag| flag as f32).collect::<Vec<_>>();
    let (rewards, values) = (backend.upload_floats(&draw.long(n, 1.0))?, backend.upload_floats(&draw.long(n, 1.0))?);
    let dones = backend.upload_floats(&flags(draw, n))?;
    let next_value = backend.upload_floats(&draw.floats(op.envs, 1.0))?;
    let next_done = backend.upload_floats(&flags(draw, op.envs))?;
    let (mut advantages, mut returns) = (backend.alloc_floats(n)?, backend.alloc_floats(n)?);
    backend.gae_cleanrl(op, &rewards, &values, &dones, &next_value, &next_done, &mut advantages, &mut returns)
}

fn discounted_returns<B: AdvantageOps>(backend: &mut B, op: &DiscountedReturns, draw: &mut Draw) -> Result<()> {
    let n = op.steps * op.envs;
    let (rewards, next_values) = (backend.upload_floats(&draw.long(n, 1.0))?, backend.upload_floats(&draw.long(n, 1.0))?);
    let next_value = backend.upload_floats(&draw.floats(op.envs, 1.0))?;
    let (terminated, truncated) = (backend.upload_words(&draw.flags(n, END))?, backend.upload_words(&draw.flags(n, END))?);
    let mut returns = backend.alloc_floats(n)?;
    backend.discounted_returns(op, &rewards, &next_values, &next_value, &terminated, &truncated, &mut returns)
}

fn reward_to_go<B: AdvantageOps>(backend: &mut B, op: &DiscountedReturns, draw: &mut Draw) -> Result<()> {
    let n = op.steps * op.envs;
    let rewards = backend.upload_floats(&draw.long(n, 1.0))?;
    let (terminated, truncated) = (backend.upload_words(&draw.flags(n, END))?, backend.upload_words(&draw.flags(n, END))?);
    let mut returns = backend.alloc_floats(n)?;
    backend.reward_to_go(op, &rewards, &terminated, &truncated, &mut returns)
}

fn refusals<B: AdvantageOps>(runner: &mut Runner<B>) -> Result<()> {
    for (what, steps, envs) in [("steps 0", 0, 1), ("envs 0", 1, 0)] {
        let op = Gae { steps, envs, gamma: 0.99, gae_lambda: 0.95 };
        runner.refuses("gae", what, |backend| {
            let (x, flags) = (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?);
            let (mut advantages, mut returns) = (backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gae(&op, &x, &x, &x, &flags, &flags, &mut advantages, &mut returns)
        })?;
        runner.refuses("gae_cleanrl", what, |backend| {
            let x = backend.upload_floats(&[0.0])?;
            let (mut advantages, mut returns) = (backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gae_cleanrl(&op, &x, &x, &x, &x, &x, &mut advantages, &mut returns)
        })?;
        let op = DiscountedReturns { steps, envs, gamma: 0.99 };
        runner.refuses("discounted_returns", what, |backend| {
            let (x, flags, mut returns) = (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?, backend.alloc_floats(1)?);
            backend.discounted_returns(&op, &x, &x, &x, &flags, &flags, &mut returns)
        })?;
        runner.refuses("reward_to_go", what, |backend| {
            let (x, flags, mut returns) = (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?, backend.alloc_floats(1)?);
            backend.reward_to_go(&op, &x, &flags, &flags, &mut returns)
        })?;
    }
    Ok(())
}
