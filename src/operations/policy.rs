//! Operations of [`kernels::policy`](crate::kernels::policy): bound by memory, and by exponentials on the CPU.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::policy::*;

/// `[batch, actions]`: around workgroups of 64 and 256, and 64 actions, up to which one invocation takes a row; more than 65 535 workgroups,
/// a row each and 64 rows each.
const ROWS: Domain = Domain {
    kernel: "policy",
    sizes: &["batch", "actions"],
    most: &[1000, 100],
    edges: &[
        &[1, 1],
        &[1, 2],
        &[63, 3],
        &[64, 4],
        &[65, 5],
        &[33, 6],
        &[255, 2],
        &[256, 3],
        &[257, 2],
        &[7, 63],
        &[257, 63],
        &[8, 64],
        &[64, 64],
        &[9, 65],
        &[63, 65],
        &[3, 257],
        &[2, 1025],
        &[65, 1025],
        &[65_600, 65],
        &[4_194_400, 1],
    ],
};

/// `[batch, dim]`: around workgroups of 64 and 256.
const OWN_LOG_STDS: Domain = Domain {
    kernel: "policy",
    sizes: &["batch", "dim"],
    most: &[1000, 70],
    edges: &[
        &[1, 1],
        &[1, 17],
        &[63, 3],
        &[64, 2],
        &[65, 1],
        &[255, 2],
        &[256, 1],
        &[257, 3],
        &[7, 63],
        &[8, 64],
        &[257, 65],
        &[1025, 6],
        &[4_194_400, 1],
    ],
};

/// Also one part of the batch that shares the log-std, two, and parts of more than 64 rows.
const SHARED_LOG_STD: Domain = Domain {
    edges: &[
        &[1, 1],
        &[1, 17],
        &[63, 3],
        &[64, 2],
        &[65, 2],
        &[255, 2],
        &[256, 1],
        &[257, 3],
        &[7, 63],
        &[8, 64],
        &[257, 65],
        &[1025, 6],
        &[65_537, 1],
    ],
    ..OWN_LOG_STDS
};

#[derive(Debug, Clone, Copy)]
enum Logits {
    Normal {
        mean: f32,
        std: f32,
    },
    /// ± so much, so that actions tie; in every other row with a rest that keeps them apart.
    Extreme(f32),
}

/// Rows of logits, and options.
#[derive(Debug, Clone, Copy)]
struct Rows {
    op: Categorical,
    logits: Logits,
    masked: bool,
    offset: usize,
    argument: KlArgument,
}

impl Rows {
    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        // A softmax does not care where its logits lie.
        let normal = Logits::Normal { mean: draw.one(&[0.0, 0.0, 50.0]), std: draw.one(&[0.01, 0.1, 1.0, 5.0]) };
        Self {
            op: Categorical { batch: sizes[0], actions: sizes[1] },
            logits: draw.one(&[normal, normal, normal, Logits::Extreme(60.0), Logits::Extreme(1e4)]),
            masked: draw.coin(),
            offset: draw.below(5),
            argument: draw.one(&[KlArgument::P, KlArgument::Q]),
        }
    }

    fn logits<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<B::Floats> {
        let n = self.op.elements();
        let data = match self.logits {
            Logits::Normal { mean, std } => inputs.draw.long(n, std).iter().map(|x| mean + x).collect::<Vec<_>>(),
            Logits::Extreme(size) => {
                let rest = |i: usize| if (i / self.op.actions).is_multiple_of(2) { 0.0 } else { 0.25 };
                let draws = inputs.draw.long(n, 1.0).into_iter().enumerate();
                draws.map(|(i, x)| size.copysign(x) + rest(i) * x).collect()
            }
        };
        inputs.upload(&data)
    }

    /// Some rows of few actions have no valid one.
    fn mask<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Option<B::Words>> {
        self.masked.then(|| inputs.flags(self.op.elements(), 0.7)).transpose()
    }

    /// `flops` a logit; `wide` tensors of them and `narrow` of one number a row.
    fn work(&self, flops: usize, wide: usize, narrow: usize) -> Work {
        let (n, batch) = (self.op.elements(), self.op.batch);
        Work::new(flops * n, wide * n + narrow * batch, ("samples_per_s", batch))
    }
}

/// Rows of means, with a log-std for each or one for all, and options.
#[derive(Debug, Clone, Copy)]
struct Normals<const OWN: bool> {
    op: Gaussian,
    /// Whether log-stds reach from e^−8 to e^4, and u to where 1 − tanh²u is far below what f32 can tell from 0.
    far_out: bool,
    offset: usize,
    argument: KlArgument,
    low: f64,
    high: f64,
    reparameterised: bool,
}

impl<const OWN: bool> Normals<OWN> {
    const DOMAIN: &'static Domain = if OWN { &OWN_LOG_STDS } else { &SHARED_LOG_STD };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (batch, dim) = (sizes[0], sizes[1]);
        let (low, high) = draw.one(&[(-1.0, 1.0), (-2.0, 2.0), (-0.5, 2.25), (0.0, 3.0)]);
        Self {
            op: Gaussian { batch, dim, state_dependent_std: OWN, log_std_offset: draw.below(3) },
            far_out: draw.one(&[true, false, false]),
            offset: draw.below(4),
            argument: draw.one(&[KlArgument::P, KlArgument::Q]),
            low,
            high,
            reparameterised: draw.coin(),
        }
    }

    fn squashed(&self) -> SquashedGaussian {
        SquashedGaussian { gaussian: self.op, low: self.low, high: self.high }
    }

    fn means<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<B::Floats> {
        inputs.floats(self.op.elements(), 1.0)
    }

    fn log_std<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<B::Floats> {
        let mut data = inputs.draw.long(self.op.log_std_offset + self.op.log_std_len(), 0.5);
        data.iter_mut().for_each(|s| *s -= 0.5);
        if self.far_out {
            data.iter_mut().for_each(|s| *s = inputs.draw.one(&[-8.0, -7.875, -1.0, -0.5, 3.0, 4.0]));
        }
        inputs.upload(&data)
    }

    /// Actions, noise or u.
    fn x<B: Backend>(&self, inputs: &mut Inputs<'_, B>, rows: usize) -> Result<B::Floats> {
        let mut data = inputs.draw.long(rows * self.op.dim, 1.0);
        if self.far_out {
            let far = [0.0, 1e-4, -0.5, 3.0, -9.0, 20.0, -60.0, 100.0, 1e4];
            data.iter_mut().for_each(|x| *x = inputs.draw.one(&far));
        }
        inputs.upload(&data)
    }

    fn work(&self, flops: usize, wide: usize, narrow: usize) -> Work {
        let (n, batch) = (self.op.elements(), self.op.batch);
        Work::new(flops * n, wide * n + narrow * batch, ("samples_per_s", batch))
    }
}

macro_rules! categorical {
    ($operation:ident, $name:literal) => {
        #[doc = concat!("[`", $name, "`](crate::backend::PolicyOps::", $name, ").")]
        #[derive(Debug)]
        pub struct $operation(Rows);

        impl Operation for $operation {
            const NAME: &'static str = $name;
            const DOMAIN: &'static Domain = &ROWS;

            fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
                Self(Rows::draw(sizes, draw))
            }
        }
    };
}

macro_rules! gaussian {
    ($operation:ident, $name:literal) => {
        #[doc = concat!("[`", $name, "`](crate::backend::PolicyOps::", $name, "), the log-std depending on the state or not.")]
        #[derive(Debug)]
        pub struct $operation<const OWN: bool>(Normals<OWN>);

        impl<const OWN: bool> Operation for $operation<OWN> {
            const NAME: &'static str = $name;
            const DOMAIN: &'static Domain = Normals::<OWN>::DOMAIN;

            fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
                Self(Normals::draw(sizes, draw))
            }
        }
    };
}

categorical!(CategoricalDistribution, "categorical_distribution");

impl Call for CategoricalDistribution {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, .. } = self.0;
        let (logits, mask) = (self.0.logits(inputs)?, self.0.mask(inputs)?);
        let [mut log_probs, mut probs] = [inputs.output(op.elements())?, inputs.output(op.elements())?];
        let (mut logsumexp, mut mode) = (inputs.output(op.batch)?, inputs.output_words(op.batch)?);
        Ok(Box::new(move |backend| {
            let (logits, mask, log_probs, probs) = (&logits, mask.as_ref(), &mut log_probs, &mut probs);
            let (logsumexp, mode) = (&mut logsumexp, &mut mode);
            let operands = CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode };
            backend.categorical_distribution(&op, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(6, 3, 2)
    }
}

categorical!(CategoricalEvaluate, "categorical_evaluate");

impl Call for CategoricalEvaluate {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, .. } = self.0;
        let (logits, mask, actions) = (self.0.logits(inputs)?, self.0.mask(inputs)?, inputs.words(op.batch, op.actions)?);
        let [mut logp, mut entropy] = [inputs.output(op.batch)?, inputs.output(op.batch)?];
        Ok(Box::new(move |backend| {
            let (logits, mask, actions, logp, entropy) = (&logits, mask.as_ref(), &actions, &mut logp, &mut entropy);
            backend.categorical_evaluate(&op, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(8, 1, 3)
    }
}

categorical!(CategoricalSample, "categorical_sample");

impl Call for CategoricalSample {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, offset, .. } = self.0;
        let (logits, mask) = (self.0.logits(inputs)?, self.0.mask(inputs)?);
        let uniforms = inputs.draw.uniforms(offset + op.batch);
        let uniforms = inputs.upload(&uniforms)?;
        let (mut actions, mut logp) = (inputs.output_words(offset + op.batch)?, inputs.output(offset + op.batch)?);
        Ok(Box::new(move |backend| {
            let (logits, mask, uniforms, actions, logp) = (&logits, mask.as_ref(), &uniforms, &mut actions, &mut logp);
            backend.categorical_sample(&op, CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(4, 1, 3)
    }
}

categorical!(CategoricalBackward, "categorical_backward");

impl Call for CategoricalBackward {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, .. } = self.0;
        let (logits, mask, actions) = (self.0.logits(inputs)?, self.0.mask(inputs)?, inputs.words(op.batch, op.actions)?);
        let [d_logp, d_entropy] = [inputs.floats(op.batch, 1.0)?, inputs.floats(op.batch, 0.1)?];
        let mut d_logits = inputs.output(op.elements())?;
        Ok(Box::new(move |backend| {
            let (logits, mask, actions, d_logits) = (&logits, mask.as_ref(), &actions, &mut d_logits);
            let (d_logp, d_entropy) = (&d_logp, &d_entropy);
            let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
            backend.categorical_backward(&op, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(12, 2, 3)
    }
}

categorical!(CategoricalKl, "categorical_kl");

impl Call for CategoricalKl {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, .. } = self.0;
        let [p_logits, q_logits] = [self.0.logits(inputs)?, self.0.logits(inputs)?];
        let (mask, mut kl) = (self.0.mask(inputs)?, inputs.output(op.batch)?);
        Ok(Box::new(move |backend| {
            let (p_logits, q_logits, mask, kl) = (&p_logits, &q_logits, mask.as_ref(), &mut kl);
            backend.categorical_kl(&op, CategoricalKlOperands { p_logits, q_logits, mask, kl })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(12, 2, 1)
    }
}

categorical!(CategoricalKlBackward, "categorical_kl_backward");

impl Call for CategoricalKlBackward {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Rows { op, argument, .. } = self.0;
        let [p_logits, q_logits] = [self.0.logits(inputs)?, self.0.logits(inputs)?];
        let (mask, d_kl) = (self.0.mask(inputs)?, inputs.floats(op.batch, 1.0)?);
        let mut d_logits = inputs.output(op.elements())?;
        Ok(Box::new(move |backend| {
            let (p_logits, q_logits, mask, d_kl, d_logits) = (&p_logits, &q_logits, mask.as_ref(), &d_kl, &mut d_logits);
            let operands = CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits };
            backend.categorical_kl_backward(&op, argument, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(16, 3, 1)
    }
}

gaussian!(GaussianEvaluate, "gaussian_evaluate");

impl<const OWN: bool> Call for GaussianEvaluate<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Normals { op, .. } = self.0;
        let (mean, log_std, actions) = (self.0.means(inputs)?, self.0.log_std(inputs)?, self.0.x(inputs, op.batch)?);
        let [mut logp, mut entropy] = [inputs.output(op.batch)?, inputs.output(op.batch)?];
        Ok(Box::new(move |backend| {
            let (mean, log_std, actions, logp, entropy) = (&mean, &log_std, &actions, &mut logp, &mut entropy);
            backend.gaussian_evaluate(&op, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(8, 2, 2)
    }
}

gaussian!(GaussianSample, "gaussian_sample");

impl<const OWN: bool> Call for GaussianSample<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Normals { op, offset, .. } = self.0;
        let rows = offset + op.batch;
        let (mean, log_std, noise) = (self.0.means(inputs)?, self.0.log_std(inputs)?, self.0.x(inputs, rows)?);
        let (mut actions, mut logp) = (inputs.output(rows * op.dim)?, inputs.output(rows)?);
        Ok(Box::new(move |backend| {
            let (mean, log_std, noise, actions, logp) = (&mean, &log_std, &noise, &mut actions, &mut logp);
            backend.gaussian_sample(&op, GaussianSampleOperands { mean, log_std, noise, offset, actions, logp })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(7, 3, 1)
    }
}

gaussian!(GaussianBackward, "gaussian_backward");

impl<const OWN: bool> Call for GaussianBackward<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Normals { op, offset: d_log_std_offset, .. } = self.0;
        let (mean, log_std, actions) = (self.0.means(inputs)?, self.0.log_std(inputs)?, self.0.x(inputs, op.batch)?);
        let [d_logp, d_entropy] = [inputs.floats(op.batch, 1.0)?, inputs.floats(op.batch, 0.1)?];
        let mut d_mean = inputs.output(op.elements())?;
        let mut d_log_std = inputs.output(d_log_std_offset + op.log_std_len())?;
        Ok(Box::new(move |backend| {
            let (mean, log_std, actions, d_logp, d_entropy) = (&mean, &log_std, &actions, &d_logp, &d_entropy);
            let (d_mean, d_log_std) = (&mut d_mean, &mut d_log_std);
            let operands =
                GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
            backend.gaussian_backward(&op, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(9, 3, 2)
    }
}

gaussian!(GaussianKl, "gaussian_kl");

impl<const OWN: bool> Call for GaussianKl<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Normals { op, .. } = self.0;
        let [p_mean, p_log_std] = [self.0.means(inputs)?, self.0.log_std(inputs)?];
        let [q_mean, q_log_std] = [self.0.means(inputs)?, self.0.log_std(inputs)?];
        let mut kl = inputs.output(op.batch)?;
        Ok(Box::new(move |backend| {
            let (p_mean, p_log_std, q_mean, q_log_std, kl) = (&p_mean, &p_log_std, &q_mean, &q_log_std, &mut kl);
            backend.gaussian_kl(&op, GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(11, 2, 1)
    }
}

gaussian!(GaussianKlBackward, "gaussian_kl_backward");

impl<const OWN: bool> Call for GaussianKlBackward<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let Normals { op, argument, .. } = self.0;
        let [p_mean, p_log_std] = [self.0.means(inputs)?, self.0.log_std(inputs)?];
        let [q_mean, q_log_std] = [self.0.means(inputs)?, self.0.log_std(inputs)?];
        let d_kl = inputs.floats(op.batch, 1.0)?;
        let [mut d_mean, mut d_log_std] = [inputs.output(op.elements())?, inputs.output(op.log_std_len())?];
        Ok(Box::new(move |backend| {
            let (p_mean, p_log_std, q_mean, q_log_std) = (&p_mean, &p_log_std, &q_mean, &q_log_std);
            let (d_kl, d_mean, d_log_std) = (&d_kl, &mut d_mean, &mut d_log_std);
            let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
            backend.gaussian_kl_backward(&op, argument, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(11, 3, 1)
    }
}

gaussian!(SquashedEvaluate, "squashed_gaussian_evaluate");

impl<const OWN: bool> Call for SquashedEvaluate<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, n, batch) = (self.0.squashed(), self.0.op.elements(), self.0.op.batch);
        let (mean, log_std, u) = (self.0.means(inputs)?, self.0.log_std(inputs)?, self.0.x(inputs, batch)?);
        let [mut actions, mut log_det, mut logp] = [inputs.output(n)?, inputs.output(n)?, inputs.output(batch)?];
        Ok(Box::new(move |backend| {
            let (mean, log_std, u) = (&mean, &log_std, &u);
            let (actions, log_det, logp) = (&mut actions, &mut log_det, &mut logp);
            backend.squashed_gaussian_evaluate(&op, SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp })
        }))
    }

    fn work(&self) -> Work {
        self.0.work(20, 4, 1)
    }
}

gaussian!(SquashedBackward, "squashed_gaussian_backward");

impl<const OWN: bool> Call for SquashedBackward<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, Normals { op: gaussian, reparameterised, .. }) = (self.0.squashed(), self.0);
        let (mean, log_std, u) = (self.0.means(inputs)?, self.0.log_std(inputs)?, self.0.x(inputs, gaussian.batch)?);
        let d_logp = inputs.floats(gaussian.batch, 1.0)?;
        let [mut d_mean, mut d_log_std] = [inputs.output(gaussian.elements())?, inputs.output(gaussian.log_std_len())?];
        Ok(Box::new(move |backend| {
            let (mean, log_std, u, d_logp) = (&mean, &log_std, &u, &d_logp);
            let (d_mean, d_log_std) = (&mut d_mean, &mut d_log_std);
            let operands = SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std };
            backend.squashed_gaussian_backward(&op, reparameterised, operands)
        }))
    }

    fn work(&self) -> Work {
        self.0.work(9, 3, 1)
    }
}

fn gaussians<const OWN: bool>(list: &mut impl Operations) -> Result<()> {
    list.add::<GaussianEvaluate<OWN>>()?;
    list.add::<GaussianSample<OWN>>()?;
    list.add::<GaussianBackward<OWN>>()?;
    list.add::<GaussianKl<OWN>>()?;
    list.add::<GaussianKlBackward<OWN>>()?;
    list.add::<SquashedEvaluate<OWN>>()?;
    list.add::<SquashedBackward<OWN>>()
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<CategoricalDistribution>()?;
    list.add::<CategoricalEvaluate>()?;
    list.add::<CategoricalSample>()?;
    list.add::<CategoricalBackward>()?;
    list.add::<CategoricalKl>()?;
    list.add::<CategoricalKlBackward>()?;
    gaussians::<false>(list)?;
    gaussians::<true>(list)
}

pub(super) fn benches(list: &mut impl Benches) {
    let rows = Rows {
        op: Categorical { batch: 2048, actions: 16 },
        logits: Logits::Normal { mean: 0.0, std: 1.0 },
        masked: false,
        offset: 0,
        argument: KlArgument::P,
    };
    list.add("sample_cat/A16_B2048".to_owned(), true, CategoricalSample(rows));
    let normals = Normals::<false> {
        op: Gaussian { batch: 4096, dim: 12, state_dependent_std: false, log_std_offset: 0 },
        far_out: false,
        offset: 0,
        argument: KlArgument::P,
        low: -1.0,
        high: 1.0,
        reparameterised: false,
    };
    list.add("sample_gauss/A12_B4096".to_owned(), true, GaussianSample(normals));
}
