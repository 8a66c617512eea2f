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
        &[9, 1025],
        &[65_600, 65],
        &[4_194_400, 1],
    ],
};

/// `[batch, dim]`: around workgroups of 64 and 256. A batch that shares its log-std is one part, two, or parts of more than 64 rows.
const MEANS: Domain = Domain {
    kernel: "policy",
    sizes: &["batch", "dim"],
    most: &[1000, 70],
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
        &[4_194_400, 1],
    ],
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

    fn uniforms<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<B::Floats> {
        let data = inputs.draw.uniforms(self.offset + self.op.batch);
        inputs.upload(&data)
    }

    /// Some rows of few actions have no valid one.
    fn mask<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Option<B::Words>> {
        self.masked.then(|| inputs.flags(self.op.elements(), 0.7)).transpose()
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
}

/// An operation of the list: the buffers that it reads, a mask, a number, and the buffers that it writes, each with how it is made; what is
/// passed before them; FLOPs an element, and tensors of one number an element and a row.
macro_rules! operation {
    (
        $operation:ident $([$own:ident])? ($drawn_as:ty): $method:ident, $operands:ident, $domain:expr;
        |$drawn:ident, $inputs:ident| pass $($argument:expr),+;
        read $($input:ident: $read:expr),+;
        $(mask $mask:ident: $flags:expr;)?
        $(size $size:ident: $number:expr;)?
        write $($output:ident: $write:expr),+;
        work $flops:literal, $wide:literal, $narrow:literal;
    ) => {
        #[doc = concat!("[`", stringify!($method), "`](crate::backend::PolicyOps::", stringify!($method), ").")]
        #[derive(Debug)]
        pub struct $operation $(<const $own: bool>)? ($drawn_as);

        impl $(<const $own: bool>)? Operation for $operation $(<$own>)? {
            const NAME: &'static str = stringify!($method);
            const DOMAIN: &'static Domain = $domain;

            fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
                Self(<$drawn_as>::draw(sizes, draw))
            }
        }

        impl $(<const $own: bool>)? Call for $operation $(<$own>)? {
            fn prepare<B: Backend>(&self, $inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
                let $drawn = self.0;
                $(let $input = $read?;)+
                $(let $mask = $flags?;)?
                $(let mut $output = $write?;)+
                Ok(Box::new(move |backend| {
                    let operands = $operands {
                        $($input: &$input,)+
                        $($mask: $mask.as_ref(),)?
                        $($size: $number,)?
                        $($output: &mut $output,)+
                    };
                    backend.$method($($argument,)+ operands)
                }))
            }

            fn work(&self) -> Work {
                let (n, batch) = (self.0.op.elements(), self.0.op.batch);
                Work::new($flops * n, $wide * n + $narrow * batch, ("samples_per_s", batch))
            }
        }
    };
}

operation! {
    CategoricalDistribution(Rows): categorical_distribution, CategoricalDistributionOperands, &ROWS;
    |rows, inputs| pass &rows.op;
    read logits: rows.logits(inputs);
    mask mask: rows.mask(inputs);
    write
        log_probs: inputs.output(rows.op.elements()),
        probs: inputs.output(rows.op.elements()),
        logsumexp: inputs.output(rows.op.batch),
        mode: inputs.output_words(rows.op.batch);
    work 6, 3, 2;
}

operation! {
    CategoricalEvaluate(Rows): categorical_evaluate, CategoricalEvaluateOperands, &ROWS;
    |rows, inputs| pass &rows.op;
    read logits: rows.logits(inputs), actions: inputs.words(rows.op.batch, rows.op.actions);
    mask mask: rows.mask(inputs);
    write logp: inputs.output(rows.op.batch), entropy: inputs.output(rows.op.batch);
    work 8, 1, 3;
}

operation! {
    CategoricalSample(Rows): categorical_sample, CategoricalSampleOperands, &ROWS;
    |rows, inputs| pass &rows.op;
    read logits: rows.logits(inputs), uniforms: rows.uniforms(inputs);
    mask mask: rows.mask(inputs);
    size offset: rows.offset;
    write actions: inputs.output_words(rows.offset + rows.op.batch), logp: inputs.output(rows.offset + rows.op.batch);
    work 4, 1, 3;
}

operation! {
    CategoricalBackward(Rows): categorical_backward, CategoricalBackwardOperands, &ROWS;
    |rows, inputs| pass &rows.op;
    read
        logits: rows.logits(inputs),
        actions: inputs.words(rows.op.batch, rows.op.actions),
        d_logp: inputs.floats(rows.op.batch, 1.0),
        d_entropy: inputs.floats(rows.op.batch, 0.1);
    mask mask: rows.mask(inputs);
    write d_logits: inputs.output(rows.op.elements());
    work 12, 2, 3;
}

operation! {
    CategoricalKl(Rows): categorical_kl, CategoricalKlOperands, &ROWS;
    |rows, inputs| pass &rows.op;
    read p_logits: rows.logits(inputs), q_logits: rows.logits(inputs);
    mask mask: rows.mask(inputs);
    write kl: inputs.output(rows.op.batch);
    work 12, 2, 1;
}

operation! {
    CategoricalKlBackward(Rows): categorical_kl_backward, CategoricalKlBackwardOperands, &ROWS;
    |rows, inputs| pass &rows.op, rows.argument;
    read p_logits: rows.logits(inputs), q_logits: rows.logits(inputs), d_kl: inputs.floats(rows.op.batch, 1.0);
    mask mask: rows.mask(inputs);
    write d_logits: inputs.output(rows.op.elements());
    work 16, 3, 1;
}

operation! {
    GaussianEvaluate[OWN](Normals<OWN>): gaussian_evaluate, GaussianEvaluateOperands, &MEANS;
    |rows, inputs| pass &rows.op;
    read mean: rows.means(inputs), log_std: rows.log_std(inputs), actions: rows.x(inputs, rows.op.batch);
    write logp: inputs.output(rows.op.batch), entropy: inputs.output(rows.op.batch);
    work 8, 2, 2;
}

operation! {
    GaussianSample[OWN](Normals<OWN>): gaussian_sample, GaussianSampleOperands, &MEANS;
    |rows, inputs| pass &rows.op;
    read mean: rows.means(inputs), log_std: rows.log_std(inputs), noise: rows.x(inputs, rows.offset + rows.op.batch);
    size offset: rows.offset;
    write
        actions: inputs.output((rows.offset + rows.op.batch) * rows.op.dim),
        logp: inputs.output(rows.offset + rows.op.batch);
    work 7, 3, 1;
}

operation! {
    GaussianBackward[OWN](Normals<OWN>): gaussian_backward, GaussianBackwardOperands, &MEANS;
    |rows, inputs| pass &rows.op;
    read
        mean: rows.means(inputs),
        log_std: rows.log_std(inputs),
        actions: rows.x(inputs, rows.op.batch),
        d_logp: inputs.floats(rows.op.batch, 1.0),
        d_entropy: inputs.floats(rows.op.batch, 0.1);
    size d_log_std_offset: rows.offset;
    write d_mean: inputs.output(rows.op.elements()), d_log_std: inputs.output(rows.offset + rows.op.log_std_len());
    work 9, 3, 2;
}

operation! {
    GaussianKl[OWN](Normals<OWN>): gaussian_kl, GaussianKlOperands, &MEANS;
    |rows, inputs| pass &rows.op;
    read
        p_mean: rows.means(inputs),
        p_log_std: rows.log_std(inputs),
        q_mean: rows.means(inputs),
        q_log_std: rows.log_std(inputs);
    write kl: inputs.output(rows.op.batch);
    work 11, 2, 1;
}

operation! {
    GaussianKlBackward[OWN](Normals<OWN>): gaussian_kl_backward, GaussianKlBackwardOperands, &MEANS;
    |rows, inputs| pass &rows.op, rows.argument;
    read
        p_mean: rows.means(inputs),
        p_log_std: rows.log_std(inputs),
        q_mean: rows.means(inputs),
        q_log_std: rows.log_std(inputs),
        d_kl: inputs.floats(rows.op.batch, 1.0);
    write d_mean: inputs.output(rows.op.elements()), d_log_std: inputs.output(rows.op.log_std_len());
    work 11, 3, 1;
}

operation! {
    SquashedEvaluate[OWN](Normals<OWN>): squashed_gaussian_evaluate, SquashedEvaluateOperands, &MEANS;
    |rows, inputs| pass &rows.squashed();
    read mean: rows.means(inputs), log_std: rows.log_std(inputs), u: rows.x(inputs, rows.op.batch);
    write
        actions: inputs.output(rows.op.elements()),
        log_det: inputs.output(rows.op.elements()),
        logp: inputs.output(rows.op.batch);
    work 20, 4, 1;
}

operation! {
    SquashedBackward[OWN](Normals<OWN>): squashed_gaussian_backward, SquashedBackwardOperands, &MEANS;
    |rows, inputs| pass &rows.squashed(), rows.reparameterised;
    read
        mean: rows.means(inputs),
        log_std: rows.log_std(inputs),
        u: rows.x(inputs, rows.op.batch),
        d_logp: inputs.floats(rows.op.batch, 1.0);
    write d_mean: inputs.output(rows.op.elements()), d_log_std: inputs.output(rows.op.log_std_len());
    work 9, 3, 1;
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
