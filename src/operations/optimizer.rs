//! Operations of [`kernels::optimizer`](crate::kernels::optimizer): bound by memory.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::optimizer::{self as kernels, AdamOperands};
use crate::layout::{control, schedule, stat, stop};

/// Around the workgroup of 256, a workgroup's share of a norm, the most partial sums, and beyond 65 535 workgroups.
const VECTORS: Domain = Domain {
    kernel: "optimizer",
    sizes: &["len"],
    most: &[20_000],
    edges: &[
        &[1],
        &[2],
        &[255],
        &[256],
        &[257],
        &[1001],
        &[8191],
        &[8192],
        &[32_767],
        &[32_768],
        &[32_769],
        &[36_865],
        &[16 * 256 * 1024 + 1],
        &[65_536 * 256 + 1],
    ],
};

/// [`gradient_norm`](crate::backend::OptimizerOps::gradient_norm).
#[derive(Debug)]
pub struct GradientNorm {
    op: kernels::GradientNorm,
    scale: f32,
}

impl Call for GradientNorm {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.op;
        let (grads, mut stats) = (inputs.floats(op.len, self.scale)?, inputs.upload(&[0.0; 3 * stat::COLUMNS])?);
        Ok(Box::new(move |backend| backend.gradient_norm(&op, &grads, &mut stats)))
    }

    fn work(&self) -> Work {
        Work::new(2 * self.op.len, self.op.len, ("elements_per_s", self.op.len))
    }
}

impl Operation for GradientNorm {
    const NAME: &'static str = "gradient_norm";
    const DOMAIN: &'static Domain = &VECTORS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (max_grad_norm, epsilon) = (draw.one(&[0.5, 1e6, f64::INFINITY]), draw.one(&[0.0, 1e-6]));
        let op = kernels::GradientNorm { len: sizes[0], max_grad_norm, epsilon, stats_row: draw.below(3) };
        Self { op, scale: draw.one(&[1e-12, 1e-4, 1.0, 100.0, 1e12]) }
    }
}

/// [`adam_step`](crate::backend::OptimizerOps::adam_step); sometimes one that has to do nothing, because an earlier one was stopped.
#[derive(Debug)]
pub struct AdamStep {
    op: kernels::Adam,
    clip_coef: f32,
    stop: u32,
}

impl AdamStep {
    fn bench(len: usize) -> Self {
        let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-5, 0.0);
        let op = kernels::Adam { len, beta1, beta2, epsilon, weight_decay, decoupled: false, schedule_row: 0, stats_row: 0 };
        Self { op, clip_coef: 1.0, stop: stop::NONE }
    }
}

impl Call for AdamStep {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.op;
        let (mut params, grads, mut m) = (inputs.floats(op.len, 0.1)?, inputs.floats(op.len, 1.0)?, inputs.floats(op.len, 0.1)?);
        let squares: Vec<f32> = inputs.draw.long(op.len, 0.1).iter().map(|x| x * x).collect();
        let mut v = inputs.upload(&squares)?;
        let rows = [1, 500].map(|t| schedule::row(2.5e-4, op.beta1, op.beta2, t));
        let schedule = inputs.upload(rows.as_flattened())?;
        let mut rows = [0.0; 2 * stat::COLUMNS];
        rows[op.stats_row * stat::COLUMNS + stat::CLIP_COEF] = self.clip_coef;
        let stats = inputs.upload(&rows)?;
        let mut words = control::INITIAL;
        words[control::STOP] = self.stop;
        let mut control = inputs.backend.upload_words(&words)?;
        Ok(Box::new(move |backend| {
            let (params, grads, m, v) = (&mut params, &grads, &mut m, &mut v);
            let (schedule, stats, control) = (&schedule, &stats, &mut control);
            backend.adam_step(&op, AdamOperands { params, grads, m, v, schedule, stats, control })
        }))
    }

    /// Parameters and both moments are read and written, gradients read.
    fn work(&self) -> Work {
        Work::new(12 * self.op.len, 7 * self.op.len, ("elements_per_s", self.op.len))
    }
}

impl Operation for AdamStep {
    const NAME: &'static str = "adam_step";
    const DOMAIN: &'static Domain = &VECTORS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let op = kernels::Adam {
            len: sizes[0],
            beta1: draw.one(&[0.0, 0.9]),
            beta2: draw.one(&[0.99, 0.999]),
            epsilon: draw.one(&[1e-8, 1e-5]),
            weight_decay: draw.one(&[0.0, 0.01]),
            decoupled: draw.coin(),
            schedule_row: draw.below(2),
            stats_row: draw.below(2),
        };
        let stop = draw.one(&[stop::NONE, stop::NONE, stop::NONE, stop::TARGET_KL]);
        Self { op, clip_coef: draw.number(0.1, 1.0) as f32, stop }
    }
}

/// Clip and Adam, as a minibatch step has them.
#[derive(Debug)]
struct Optimizer {
    norm: GradientNorm,
    adam: AdamStep,
}

impl Call for Optimizer {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (mut norm, mut adam) = (self.norm.prepare(inputs)?, self.adam.prepare(inputs)?);
        Ok(Box::new(move |backend| norm(backend).and_then(|()| adam(backend))))
    }

    fn work(&self) -> Work {
        let (norm, adam) = (self.norm.work(), self.adam.work());
        Work { flops: norm.flops + adam.flops, bytes: norm.bytes + adam.bytes, ..adam }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<GradientNorm>()?;
    list.add::<AdamStep>()
}

pub(super) fn benches(list: &mut impl Benches) {
    for len in [20_000, 400_000] {
        let op = kernels::GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
        let bench = Optimizer { norm: GradientNorm { op, scale: 1e-2 }, adam: AdamStep::bench(len) };
        list.add(format!("optimizer/P{len}"), true, bench);
    }
}
