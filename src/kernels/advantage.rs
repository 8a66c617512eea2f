//! Advantages and returns over a rollout `[T, N]`, time-major: reverse scans of affine maps.

use crate::error::Result;
use crate::operands::{Length, operands, require_lens};
use crate::shape::{elements, require_range, require_size};
use crate::tolerance::{F32_ROUNDOFF, Tolerance};

/// Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gae {
    /// T, steps.
    pub steps: usize,
    /// N, environments.
    pub envs: usize,
    /// Discount γ in [0, 1].
    pub gamma: f64,
    /// λ in [0, 1].
    pub gae_lambda: f64,
}

/// Discounted sums of rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscountedReturns {
    /// T, steps.
    pub steps: usize,
    /// N, environments.
    pub envs: usize,
    /// Discount γ in [0, 1].
    pub gamma: f64,
}

operands! {
    /// Operands of [`gae`](crate::backend::AdvantageOps::gae), all `[T, N]`.
    pub struct GaeOperands<F, W> {
        /// Rewards r.
        rewards: Floats,
        /// Values v of the observations that the policy acted on.
        values: Floats,
        /// Values of the observations that the steps reached, before any reset. What stands behind a termination has no effect.
        next_values: Floats,
        /// 1 where the episode ended in a terminal state.
        terminated: Words,
        /// 1 where it was cut off.
        truncated: Words,
        /// Advantages A.
        advantages: FloatsMut,
        /// A + v.
        returns: FloatsMut,
    }
}

operands! {
    /// Operands of [`gae_cleanrl`](crate::backend::AdvantageOps::gae_cleanrl): `[T, N]`, or `[N]` where it says so.
    pub struct CleanRlGaeOperands<F> {
        /// Rewards r.
        rewards: Floats,
        /// Values v of the observations that the policy acted on.
        values: Floats,
        /// 1.0 where a step starts a new episode.
        dones: Floats,
        /// `[N]`: value of the observation after the last step.
        next_value: Floats,
        /// `[N]`: 1.0 where that observation starts a new episode.
        next_done: Floats,
        /// Advantages A.
        advantages: FloatsMut,
        /// A + v.
        returns: FloatsMut,
    }
}

operands! {
    /// Operands of [`discounted_returns`](crate::backend::AdvantageOps::discounted_returns): `[T, N]`, or `[N]` where it says so.
    pub struct ReturnsOperands<F, W> {
        /// Rewards r.
        rewards: Floats,
        /// Values of the observations that the steps reached, read at truncations.
        next_values: Floats,
        /// `[N]`: value of the observation after the last step.
        next_value: Floats,
        /// 1 where the episode ended in a terminal state.
        terminated: Words,
        /// 1 where it was cut off.
        truncated: Words,
        /// Returns G.
        returns: FloatsMut,
    }
}

operands! {
    /// Operands of [`reward_to_go`](crate::backend::AdvantageOps::reward_to_go), all `[T, N]`.
    pub struct RewardToGoOperands<F, W> {
        /// Rewards r.
        rewards: Floats,
        /// 1 where the episode ended in a terminal state.
        terminated: Words,
        /// 1 where it was cut off.
        truncated: Words,
        /// Returns G.
        returns: FloatsMut,
    }
}

/// T·N, after checks of sizes and γ.
fn check(steps: usize, envs: usize, gamma: f64) -> Result<usize> {
    require_size("steps", steps)?;
    require_size("envs", envs)?;
    require_range("gamma", gamma, 0.0, 1.0)?;
    elements("rewards", steps, envs)
}

impl Gae {
    /// T·N.
    pub(crate) fn len(&self) -> usize {
        self.steps.saturating_mul(self.envs)
    }

    /// What a later advantage is multiplied by, γλ.
    pub(crate) fn decay(&self) -> f64 {
        self.gamma * self.gae_lambda
    }

    /// T·N, after checks of sizes, γ and λ.
    fn check(&self) -> Result<usize> {
        require_range("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        check(self.steps, self.envs, self.gamma)
    }

    pub(crate) fn check_gae<F: Length, W: Length>(&self, operands: &GaeOperands<'_, F, W>) -> Result<()> {
        let n = self.check()?;
        require_lens!(operands, n => rewards, values, next_values, terminated, truncated, advantages, returns);
        Ok(())
    }

    pub(crate) fn check_gae_cleanrl<F: Length>(&self, operands: &CleanRlGaeOperands<'_, F>) -> Result<()> {
        let n = self.check()?;
        require_lens!(operands, n => rewards, values, dones, advantages, returns; self.envs => next_value, next_done);
        Ok(())
    }

    /// How far advantages and returns may lie from the exact ones; see `RowBounds`.
    pub fn tolerances(
        &self,
        rewards: &[f64],
        values: &[f64],
        next_values: &[f64],
        terminated: &[u32],
        truncated: &[u32],
    ) -> (Tolerance, Tolerance) {
        self.bounds(values, |i| {
            let bootstrap = if terminated[i] != 0 { 0.0 } else { self.gamma * next_values[i].abs() };
            (rewards[i].abs() + bootstrap + values[i].abs(), terminated[i] | truncated[i] != 0)
        })
    }

    /// As [`tolerances`](Self::tolerances), for CleanRL's form.
    pub fn tolerances_cleanrl(
        &self,
        rewards: &[f64],
        values: &[f64],
        dones: &[f64],
        next_value: &[f64],
        next_done: &[f64],
    ) -> (Tolerance, Tolerance) {
        let last_row = self.len() - self.envs;
        self.bounds(values, |i| {
            let (next, done) = match i.checked_sub(last_row) {
                Some(env) => (next_value[env], next_done[env] != 0.0),
                None => (values[i + self.envs], dones[i + self.envs] != 0.0),
            };
            let bootstrap = if done { 0.0 } else { self.gamma * next.abs() };
            (rewards[i].abs() + bootstrap + values[i].abs(), done)
        })
    }

    fn bounds(&self, values: &[f64], magnitude_and_end: impl Fn(usize) -> (f64, bool)) -> (Tolerance, Tolerance) {
        let rows = RowBounds { steps: self.steps, envs: self.envs, decay: self.decay() };
        let (advantages, magnitudes) = rows.bounds(&vec![0.0; self.envs], magnitude_and_end);
        // One more rounding, of A + v.
        let returns = (0..self.len()).map(|i| advantages[i] + F32_ROUNDOFF * (magnitudes[i] + advantages[i] + values[i].abs()));
        let returns = Tolerance::PerElement(returns.collect());
        (Tolerance::PerElement(advantages), returns)
    }
}

impl DiscountedReturns {
    /// T·N.
    pub(crate) fn len(&self) -> usize {
        self.steps.saturating_mul(self.envs)
    }

    pub(crate) fn check_returns<F: Length, W: Length>(&self, operands: &ReturnsOperands<'_, F, W>) -> Result<()> {
        let n = check(self.steps, self.envs, self.gamma)?;
        require_lens!(operands, n => rewards, next_values, terminated, truncated, returns; self.envs => next_value);
        Ok(())
    }

    pub(crate) fn check_reward_to_go<F: Length, W: Length>(&self, operands: &RewardToGoOperands<'_, F, W>) -> Result<()> {
        let n = check(self.steps, self.envs, self.gamma)?;
        require_lens!(operands, n => rewards, terminated, truncated, returns);
        Ok(())
    }

    /// How far the returns may lie from the exact ones; see `RowBounds`.
    pub fn tolerance(
        &self,
        rewards: &[f64],
        next_values: &[f64],
        next_value: &[f64],
        terminated: &[u32],
        truncated: &[u32],
    ) -> Tolerance {
        let last: Vec<f64> = next_value[..self.envs].iter().map(|v| v.abs()).collect();
        self.bound(&last, |i| {
            let bootstrap = if truncated[i] != 0 && terminated[i] == 0 { self.gamma * next_values[i].abs() } else { 0.0 };
            (rewards[i].abs() + bootstrap, terminated[i] | truncated[i] != 0)
        })
    }

    /// As [`tolerance`](Self::tolerance), without any bootstrap.
    pub fn tolerance_reward_to_go(&self, rewards: &[f64], terminated: &[u32], truncated: &[u32]) -> Tolerance {
        self.bound(&vec![0.0; self.envs], |i| (rewards[i].abs(), terminated[i] | truncated[i] != 0))
    }

    fn bound(&self, last: &[f64], magnitude_and_end: impl Fn(usize) -> (f64, bool)) -> Tolerance {
        let rows = RowBounds { steps: self.steps, envs: self.envs, decay: self.gamma };
        Tolerance::PerElement(rows.bounds(last, magnitude_and_end).0)
    }
}

/// Forward error bounds of the recursion x_t = a_t + b_t·x_{t+1}, element by element.
///
/// x_t = Σ_j w_j·a_{t+j} with w_j = γλ to the power j. The term of a_{t+j} goes through at most
/// - 4 roundings while a is made (γ, the product, the sum, the difference) and one less than 1 for a sum of magnitudes,
/// - 4 a step of distance: γλ itself, the product of weights it enters, and product and sum where the term is the later operand,
/// - 30 sums as the earlier operand of a composition: 7 within a lane and 8 in the scan of lanes, for steps and again for blocks,
///
/// and in the row form fewer. So |error| ≤ Σ_j ((1 + u)^(36 + 4j) − 1)·w_j·|a_{t+j}|, which is the difference of two recursions on
/// magnitudes. Magnitudes are those of a's operands, since the sums in a may cancel.
struct RowBounds {
    steps: usize,
    envs: usize,
    decay: f64,
}

impl RowBounds {
    const ROUNDINGS: i32 = 36;
    const ROUNDINGS_A_STEP: i32 = 4;
    /// Added to each magnitude, so that u times it covers a result flushed to zero below 2⁻¹²⁶.
    const FLUSHED: f64 = f32::MIN_POSITIVE as f64 / F32_ROUNDOFF;

    /// The bounds and the magnitudes, both `[T, N]`; `last` `[N]` are the magnitudes of x_T.
    fn bounds(&self, last: &[f64], magnitude_and_end: impl Fn(usize) -> (f64, bool)) -> (Vec<f64>, Vec<f64>) {
        let grown_decay = self.decay * (1.0 + F32_ROUNDOFF).powi(Self::ROUNDINGS_A_STEP);
        let growth = (1.0 + F32_ROUNDOFF).powi(Self::ROUNDINGS);
        let (mut exact, mut grown) = (last.to_vec(), last.to_vec());
        let mut bounds = vec![0.0; self.steps * self.envs];
        let mut magnitudes = bounds.clone();
        for t in (0..self.steps).rev() {
            for env in 0..self.envs {
                let i = t * self.envs + env;
                let (magnitude, ends) = magnitude_and_end(i);
                let magnitude = magnitude + Self::FLUSHED;
                let cut_off = ends || self.decay == 0.0;
                exact[env] = if cut_off { magnitude } else { magnitude + self.decay * exact[env] };
                grown[env] = if cut_off { magnitude } else { magnitude + grown_decay * grown[env] };
                bounds[i] = growth * grown[env] - exact[env];
                magnitudes[i] = exact[env];
            }
        }
        (bounds, magnitudes)
    }
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands};
    use crate::error::Result;
    use crate::gpu::{Bound, Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader =
        Shader { name: "advantage", source: include_str!("../../shaders/advantage.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(AdvantageParams::NAME, size_of::<AdvantageParams>(), AdvantageParams::FIELDS)],
        entries: &[
            ("row", &[GAE, CLEANRL, RETURNS, REWARD_TO_GO]),
            ("block_maps", &[GAE, CLEANRL, RETURNS, REWARD_TO_GO]),
            ("block_carries", &[&[]]),
            ("blocks", &[GAE, CLEANRL, RETURNS, REWARD_TO_GO]),
            ("blocks_in_turn", &[GAE, CLEANRL, RETURNS, REWARD_TO_GO]),
        ],
    }];

    type Form = &'static [(&'static str, f64)];
    const GAE: Form = &[("FORM", 0.0)];
    const CLEANRL: Form = &[("FORM", 1.0)];
    const RETURNS: Form = &[("FORM", 2.0)];
    const REWARD_TO_GO: Form = &[("FORM", 3.0)];

    /// As in the shader.
    const ROW_WORKGROUP: usize = 64;
    /// As in the shader.
    const SCAN_WORKGROUP: usize = 256;
    /// As in the shader.
    const STEPS_PER_LANE: usize = 8;
    /// Steps of one dispatch of the row form; longer rollouts continue in the next. llvmpipe leaves a shader's loops, silently, after 65 535
    /// iterations (of four steps here), and GPUs that also draw a screen are reset after a second or two in one dispatch.
    const ROW_STEPS: usize = 1 << 17;
    /// Environments of a tile, where there are that many: 8 floats are a sector of 32 bytes, the least that a GPU loads.
    const MOST_TILE_ENVS: usize = 8;
    /// Tiles of environments from which on a workgroup takes all blocks of its own: so few leave three quarters of a large GPU idle, but three dispatches
    /// and a second reading take longer.
    const ENOUGH_TILES: usize = 32;

    shader_params! {
        struct AdvantageParams {
            steps: u32,
            envs: u32,
            gamma: f32,
            decay: f32,
            blocks: u32,
            lanes: u32,
            env_tiles: u32,
            rounds: u32,
            row_start: u32,
            row_end: u32,
        }
    }

    /// How to walk over time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Method {
        /// One invocation an environment.
        Row,
        /// A parallel scan over time.
        Scan,
    }

    impl Method {
        /// On a software adapter the row form won at every shape measured (llvmpipe: 128x8 70 against 140 us, 1024x1024 32 against
        /// 80 ms, 2^20x1 70 against 100 ms): one core gains nothing from more lanes and pays for barriers and the second reading.
        ///
        /// On a GPU, by reasoning: a row takes a memory latency, about 1 us, for each four steps, and needs some 16 384 environments to
        /// keep enough loads in flight for the memory's bandwidth; a scan takes a dispatch of a few us, or three and 1.7 times the traffic.
        pub(crate) fn for_shape(steps: usize, envs: usize, is_software: bool) -> Self {
            if is_software || steps <= 32 || envs >= 16_384 { Method::Row } else { Method::Scan }
        }
    }

    /// The shape of a parallel scan: blocks of `lanes`·[`STEPS_PER_LANE`] steps, and how the blocks themselves are scanned.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct ScanPlan {
        pub(crate) lanes: usize,
        pub(crate) env_tiles: usize,
        pub(crate) blocks: usize,
        pub(crate) carry_lanes: usize,
        pub(crate) carry_env_tiles: usize,
        pub(crate) carry_rounds: usize,
    }

    impl ScanPlan {
        pub(crate) fn new(steps: usize, envs: usize) -> Self {
            let tile_envs = envs.next_power_of_two().min(MOST_TILE_ENVS);
            let lanes = lanes_for(steps).min(SCAN_WORKGROUP / tile_envs);
            let blocks = steps.div_ceil(lanes * STEPS_PER_LANE);
            let carry_lanes = lanes_for(blocks);
            Self {
                lanes,
                env_tiles: envs.div_ceil(SCAN_WORKGROUP / lanes),
                blocks,
                carry_lanes,
                carry_env_tiles: envs.div_ceil(SCAN_WORKGROUP / carry_lanes),
                carry_rounds: blocks.div_ceil(carry_lanes * STEPS_PER_LANE),
            }
        }

        /// Whether a workgroup takes all blocks of its environments, one after the other.
        pub(crate) fn in_turn(&self) -> bool {
            self.blocks > 1 && self.env_tiles >= ENOUGH_TILES
        }

        /// Elements of the scratch buffer: a map, which is two numbers, for each block of each environment. A single block needs none, but
        /// the binding has to be filled.
        pub(crate) fn scratch_len(&self, envs: usize) -> usize {
            if self.blocks > 1 { 2 * self.blocks * envs } else { 2 }
        }
    }

    /// Lanes that cover `count` elements, STEPS_PER_LANE each, as far as a workgroup has them.
    fn lanes_for(count: usize) -> usize {
        count.div_ceil(STEPS_PER_LANE).next_power_of_two().min(SCAN_WORKGROUP)
    }

    /// The shader's inputs; other forms than GAE use them as its header says.
    const INPUTS: [&str; 5] = ["rewards", "values", "next_values", "terminated", "truncated"];

    struct Recursion<'a> {
        form: Form,
        steps: usize,
        envs: usize,
        gamma: f64,
        decay: f64,
        /// See [`INPUTS`].
        inputs: [Buffer<u32>; 5],
        /// The second is GAE's alone.
        outputs: (&'a Buffer<f32>, Option<&'a Buffer<f32>>),
    }

    impl Recursion<'_> {
        fn record(&self, context: &mut Context, method: Method) -> Result<()> {
            let inputs: Vec<Bound> = INPUTS.into_iter().zip(self.inputs.iter().cloned()).collect();
            let (scanned, returns) = self.outputs;
            let returns = match returns {
                Some(returns) => returns.clone(),
                // Every binding of a pipeline has to be filled, and an output may not be bound twice.
                None => context.scratch("advantage: no returns", 1)?,
            };
            let outputs = [bind("scanned", scanned), bind("returns", &returns)];
            match method {
                Method::Row => self.record_rows(context, &[&inputs, &outputs[..]].concat()),
                Method::Scan => self.record_scan(context, inputs, &outputs),
            }
        }

        fn record_rows(&self, context: &mut Context, buffers: &[Bound]) -> Result<()> {
            let grid = Grid::covering(self.envs, ROW_WORKGROUP);
            for row_start in (0..self.steps).step_by(ROW_STEPS).rev() {
                let row_end = self.steps.min(row_start + ROW_STEPS) as u32;
                let params = AdvantageParams { row_start: row_start as u32, row_end, ..self.params() };
                context.dispatch(SHADER, "row", self.form, &params, buffers, grid)?;
            }
            Ok(())
        }

        fn record_scan(&self, context: &mut Context, mut buffers: Vec<Bound>, outputs: &[Bound]) -> Result<()> {
            let plan = ScanPlan::new(self.steps, self.envs);
            let (blocks, lanes, env_tiles) = (plan.blocks as u32, plan.lanes as u32, plan.env_tiles as u32);
            let params = AdvantageParams { blocks, lanes, env_tiles, ..self.params() };
            if plan.in_turn() {
                buffers.extend_from_slice(outputs);
                return context.dispatch(SHADER, "blocks_in_turn", self.form, &params, &buffers, Grid::Linear(plan.env_tiles));
            }
            let maps_of_blocks: Buffer<f32> = context.scratch("advantage", plan.scratch_len(self.envs))?;
            let grid = Grid::Linear(plan.blocks * plan.env_tiles);
            buffers.push(bind("maps_of_blocks", &maps_of_blocks));
            if plan.blocks > 1 {
                context.dispatch(SHADER, "block_maps", self.form, &params, &buffers, grid)?;
                let (lanes, env_tiles) = (plan.carry_lanes as u32, plan.carry_env_tiles as u32);
                let params = AdvantageParams { lanes, env_tiles, rounds: plan.carry_rounds as u32, ..params };
                let grid = Grid::Linear(plan.carry_env_tiles);
                context.dispatch(SHADER, "block_carries", &[], &params, &[bind("maps_of_blocks", &maps_of_blocks)], grid)?;
            }
            buffers.extend_from_slice(outputs);
            context.dispatch(SHADER, "blocks", self.form, &params, &buffers, grid)
        }

        fn params(&self) -> AdvantageParams {
            AdvantageParams {
                steps: self.steps as u32,
                envs: self.envs as u32,
                gamma: self.gamma as f32,
                decay: self.decay as f32,
                ..bytemuck::Zeroable::zeroed()
            }
        }
    }

    pub(crate) fn record_gae(
        context: &mut Context,
        method: Method,
        op: &Gae,
        operands: &GaeOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check_gae(operands)?;
        let GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns } = operands;
        let inputs = [rewards.cast(), values.cast(), next_values.cast(), (*terminated).clone(), (*truncated).clone()];
        op.recursion(GAE, inputs, [advantages, returns]).record(context, method)
    }

    pub(crate) fn record_gae_cleanrl(
        context: &mut Context,
        method: Method,
        op: &Gae,
        operands: &CleanRlGaeOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        op.check_gae_cleanrl(operands)?;
        let CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns } = operands;
        let inputs = [rewards, values, next_value, dones, next_done].map(|buffer| buffer.cast());
        op.recursion(CLEANRL, inputs, [advantages, returns]).record(context, method)
    }

    pub(crate) fn record_discounted_returns(
        context: &mut Context,
        method: Method,
        op: &DiscountedReturns,
        operands: &ReturnsOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check_returns(operands)?;
        let ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns } = operands;
        let inputs = [rewards.cast(), next_value.cast(), next_values.cast(), (*terminated).clone(), (*truncated).clone()];
        op.recursion(RETURNS, inputs, returns).record(context, method)
    }

    pub(crate) fn record_reward_to_go(
        context: &mut Context,
        method: Method,
        op: &DiscountedReturns,
        operands: &RewardToGoOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check_reward_to_go(operands)?;
        let RewardToGoOperands { rewards, terminated, truncated, returns } = operands;
        // Nothing is read from bindings 2 and 3 in this form.
        let inputs = [rewards.cast(), rewards.cast(), rewards.cast(), (*terminated).clone(), (*truncated).clone()];
        op.recursion(REWARD_TO_GO, inputs, returns).record(context, method)
    }

    impl Gae {
        fn recursion<'a>(
            &self,
            form: Form,
            inputs: [Buffer<u32>; 5],
            [advantages, returns]: [&'a Buffer<f32>; 2],
        ) -> Recursion<'a> {
            let (steps, envs, gamma, decay) = (self.steps, self.envs, self.gamma, self.decay());
            Recursion { form, steps, envs, gamma, decay, inputs, outputs: (advantages, Some(returns)) }
        }
    }

    impl DiscountedReturns {
        fn recursion<'a>(&self, form: Form, inputs: [Buffer<u32>; 5], returns: &'a Buffer<f32>) -> Recursion<'a> {
            let (steps, envs, gamma) = (self.steps, self.envs, self.gamma);
            Recursion { form, steps, envs, gamma, decay: gamma, inputs, outputs: (returns, None) }
        }
    }
}
