//! Operations of [`kernels::advantage`](crate::kernels::advantage): bound by memory where there are many environments, by latency where
//! there are few.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::advantage::{self as kernels, CleanRlGaeOperands, GaeOperands, ReturnsOperands, RewardToGoOperands};

/// `[steps, envs]`: around what a lane takes (8 steps), workgroups of 64 and 256, blocks (2048 steps of one environment, 256 of eight),
/// tiles of environments; blocks side by side up to 248 environments and in turn beyond; several dispatches of rows; two rounds of
/// carries; more than 65 535 workgroups of 64.
const ROLLOUTS: Domain = Domain {
    kernel: "advantage",
    sizes: &["steps", "envs"],
    most: &[3000, 40],
    edges: &[
        &[1, 1],
        &[1, 257],
        &[2, 2],
        &[3, 65],
        &[4, 64],
        &[5, 63],
        &[7, 3],
        &[8, 3],
        &[9, 3],
        &[17, 3],
        &[65, 65],
        &[128, 8],
        &[255, 9],
        &[256, 9],
        &[257, 9],
        &[2047, 1],
        &[2048, 1],
        &[2049, 1],
        &[4097, 1],
        &[257, 248],
        &[256, 249],
        &[800, 260],
        &[65_537, 1],
        &[1 << 20, 1],
        &[(1 << 19) + 700, 8],
        &[1, 64 * 65_536 + 1],
    ],
};

/// γ, λ, and the chance that an episode ends at a step: never, rarely, always. In a third of all draws nothing decays and nothing ends, so
/// that each step reaches the first one through all blocks.
fn coefficients(draw: &mut Draw) -> (f64, f64, f64) {
    let inside = draw.number(0.8, 1.0);
    let mut discount = || draw.one(&[0.0, 1e-30, 0.99, 0.9999, 1.0, inside, inside, inside]);
    let (gamma, gae_lambda) = (discount(), discount());
    let ends = draw.one(&[0.0, 0.001, 0.03, 0.03, 1.0]);
    draw.one(&[(gamma, gae_lambda, ends), (gamma, gae_lambda, ends), (1.0, 1.0, 0.0)])
}

/// [`gae`](crate::backend::AdvantageOps::gae).
#[derive(Debug)]
pub struct Gae {
    op: kernels::Gae,
    ends: f64,
}

impl Call for Gae {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, n) = (self.op, self.op.steps * self.op.envs);
        let [rewards, values, next_values] = [inputs.floats(n, 1.0)?, inputs.floats(n, 1.0)?, inputs.floats(n, 1.0)?];
        let [terminated, truncated] = [inputs.flags(n, self.ends)?, inputs.flags(n, self.ends)?];
        let [mut advantages, mut returns] = [inputs.output(n)?, inputs.output(n)?];
        Ok(Box::new(move |backend| {
            backend.gae(
                &op,
                GaeOperands {
                    rewards: &rewards,
                    values: &values,
                    next_values: &next_values,
                    terminated: &terminated,
                    truncated: &truncated,
                    advantages: &mut advantages,
                    returns: &mut returns,
                },
            )
        }))
    }

    /// Nine operations a step; five numbers read and two written.
    fn work(&self) -> Work {
        let n = self.op.steps * self.op.envs;
        Work::new(9 * n, 7 * n, ("elements_per_s", n))
    }
}

impl Operation for Gae {
    const NAME: &'static str = "gae";
    const DOMAIN: &'static Domain = &ROLLOUTS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (steps, envs) = (sizes[0], sizes[1]);
        let (gamma, gae_lambda, ends) = coefficients(draw);
        Self { op: kernels::Gae { steps, envs, gamma, gae_lambda }, ends }
    }
}

/// [`gae_cleanrl`](crate::backend::AdvantageOps::gae_cleanrl).
#[derive(Debug)]
pub struct CleanRlGae {
    op: kernels::Gae,
    ends: f64,
}

impl CleanRlGae {
    /// With CleanRL's coefficients, and an end in fifty steps.
    pub fn bench(steps: usize, envs: usize) -> Self {
        Self { op: kernels::Gae { steps, envs, gamma: 0.99, gae_lambda: 0.95 }, ends: 0.02 }
    }
}

impl Call for CleanRlGae {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, n) = (self.op, self.op.steps * self.op.envs);
        let [rewards, values, dones] = [inputs.floats(n, 1.0)?, inputs.floats(n, 1.0)?, inputs.float_flags(n, self.ends)?];
        let [next_value, next_done] = [inputs.floats(op.envs, 1.0)?, inputs.float_flags(op.envs, self.ends)?];
        let [mut advantages, mut returns] = [inputs.output(n)?, inputs.output(n)?];
        Ok(Box::new(move |backend| {
            backend.gae_cleanrl(
                &op,
                CleanRlGaeOperands {
                    rewards: &rewards,
                    values: &values,
                    dones: &dones,
                    next_value: &next_value,
                    next_done: &next_done,
                    advantages: &mut advantages,
                    returns: &mut returns,
                },
            )
        }))
    }

    /// Nine operations a step; three numbers read and two written.
    fn work(&self) -> Work {
        let n = self.op.steps * self.op.envs;
        Work::new(9 * n, 5 * n, ("elements_per_s", n))
    }
}

impl Operation for CleanRlGae {
    const NAME: &'static str = "gae_cleanrl";
    const DOMAIN: &'static Domain = &ROLLOUTS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let Gae { op, ends } = Gae::draw(sizes, draw);
        Self { op, ends }
    }
}

/// [`discounted_returns`](crate::backend::AdvantageOps::discounted_returns).
#[derive(Debug)]
pub struct DiscountedReturns {
    op: kernels::DiscountedReturns,
    ends: f64,
}

impl Call for DiscountedReturns {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, n) = (self.op, self.op.steps * self.op.envs);
        let [rewards, next_values] = [inputs.floats(n, 1.0)?, inputs.floats(n, 1.0)?];
        let next_value = inputs.floats(op.envs, 1.0)?;
        let [terminated, truncated] = [inputs.flags(n, self.ends)?, inputs.flags(n, self.ends)?];
        let mut returns = inputs.output(n)?;
        Ok(Box::new(move |backend| {
            backend.discounted_returns(
                &op,
                ReturnsOperands {
                    rewards: &rewards,
                    next_values: &next_values,
                    next_value: &next_value,
                    terminated: &terminated,
                    truncated: &truncated,
                    returns: &mut returns,
                },
            )
        }))
    }

    /// Four operations a step; four numbers read and one written.
    fn work(&self) -> Work {
        let n = self.op.steps * self.op.envs;
        Work::new(4 * n, 5 * n, ("elements_per_s", n))
    }
}

impl Operation for DiscountedReturns {
    const NAME: &'static str = "discounted_returns";
    const DOMAIN: &'static Domain = &ROLLOUTS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (steps, envs) = (sizes[0], sizes[1]);
        let (gamma, _, ends) = coefficients(draw);
        Self { op: kernels::DiscountedReturns { steps, envs, gamma }, ends }
    }
}

/// [`reward_to_go`](crate::backend::AdvantageOps::reward_to_go).
#[derive(Debug)]
pub struct RewardToGo {
    op: kernels::DiscountedReturns,
    ends: f64,
}

impl Call for RewardToGo {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, n) = (self.op, self.op.steps * self.op.envs);
        let rewards = inputs.floats(n, 1.0)?;
        let [terminated, truncated] = [inputs.flags(n, self.ends)?, inputs.flags(n, self.ends)?];
        let mut returns = inputs.output(n)?;
        Ok(Box::new(move |backend| {
            let (terminated, truncated, returns) = (&terminated, &truncated, &mut returns);
            backend.reward_to_go(&op, RewardToGoOperands { rewards: &rewards, terminated, truncated, returns })
        }))
    }

    /// Two operations a step; three numbers read and one written.
    fn work(&self) -> Work {
        let n = self.op.steps * self.op.envs;
        Work::new(2 * n, 4 * n, ("elements_per_s", n))
    }
}

impl Operation for RewardToGo {
    const NAME: &'static str = "reward_to_go";
    const DOMAIN: &'static Domain = &ROLLOUTS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let DiscountedReturns { op, ends } = DiscountedReturns::draw(sizes, draw);
        Self { op, ends }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<Gae>()?;
    list.add::<CleanRlGae>()?;
    list.add::<DiscountedReturns>()?;
    list.add::<RewardToGo>()
}

pub(super) fn benches(list: &mut impl Benches) {
    let sizes = [[128, 8], [2048, 1], [128, 4096], [16, 65_536], [1024, 1024], [8192, 64]];
    for (i, [steps, envs]) in sizes.into_iter().enumerate() {
        list.add(format!("gae/T{steps}_N{envs}"), i < 3, CleanRlGae::bench(steps, envs));
    }
}
