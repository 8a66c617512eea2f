//! Cases of [`kernels::optimizer`](crate::kernels::optimizer).

use super::runner::Runner;
use crate::backend::OptimizerOps;
use crate::error::Result;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::layout::{control, schedule, stat, stop};
use crate::operations::Draw;

/// Around the workgroup of 256, several of them, and beyond 65 535.
const EDGES: &[[usize; 1]] = &[[1], [63], [64], [65], [255], [256], [257], [1025], [70_001], [65_536 * 256 + 1]];
const MOST: [usize; 1] = [20_000];

pub(super) fn cases<B: OptimizerOps>(runner: &mut Runner<B>) -> Result<()> {
    for [len] in runner.shapes(EDGES, MOST) {
        runner.case("gradient_norm", format!("len {len}"), |backend, draw| {
            let (max_grad_norm, epsilon) = (draw.one(&[0.5, 1e6, f64::INFINITY]), draw.one(&[0.0, 1e-6]));
            let op = GradientNorm { len, max_grad_norm, epsilon, stats_row: draw.below(3) };
            let scale = draw.one(&[1e-4, 1.0, 100.0]);
            let grads = backend.upload_floats(&draw.long(len, scale))?;
            let mut stats = backend.upload_floats(&[0.0; 3 * stat::COLUMNS])?;
            backend.gradient_norm(&op, &grads, &mut stats)
        })?;
        runner.case("adam_step", format!("len {len}"), |backend, draw| adam_step(backend, len, draw))?;
    }
    runner.refuses("gradient_norm", "len 0", |backend| {
        let op = GradientNorm { len: 0, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
        let (grads, mut stats) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; stat::COLUMNS])?);
        backend.gradient_norm(&op, &grads, &mut stats)
    })?;
    runner.refuses("adam_step", "len 0", |backend| {
        let op = Adam { len: 0, ..adam(1) };
        let mut vector = || backend.upload_floats(&[0.0]);
        let (mut params, grads, mut m, mut v) = (vector()?, vector()?, vector()?, vector()?);
        let schedule = backend.upload_floats(&[0.0; schedule::COLUMNS])?;
        let stats = backend.upload_floats(&[1.0; stat::COLUMNS])?;
        let mut words = backend.upload_words(&control::INITIAL)?;
        backend.adam_step(&op, &mut params, &grads, &mut m, &mut v, &schedule, &stats, &mut words)
    })
}

fn adam(len: usize) -> Adam {
    Adam { len, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.0, decoupled: false, schedule_row: 0, stats_row: 0 }
}

/// A step of any kind; now and then one that has to do nothing, because an earlier one was stopped.
fn adam_step<B: OptimizerOps>(backend: &mut B, len: usize, draw: &mut Draw) -> Result<()> {
    let op = Adam {
        beta1: draw.one(&[0.0, 0.9]),
        beta2: draw.one(&[0.99, 0.999]),
        epsilon: draw.one(&[1e-8, 1e-5]),
        weight_decay: draw.one(&[0.0, 0.01]),
        decoupled: draw.coin(),
        schedule_row: draw.below(2),
        stats_row: draw.below(2),
        ..adam(len)
    };
    let mut params = backend.upload_floats(&draw.long(len, 0.1))?;
    let grads = backend.upload_floats(&draw.long(len, 1.0))?;
    let mut m = backend.upload_floats(&draw.long(len, 0.1))?;
    let squares: Vec<f32> = draw.long(len, 0.1).iter().map(|x| x * x).collect();
    let mut v = backend.upload_floats(&squares)?;
    let rows = [1, 500].map(|t| schedule::row(2.5e-4, op.beta1, op.beta2, t));
    let schedule = backend.upload_floats(rows.as_flattened())?;
    let mut row = [0.0; 2 * stat::COLUMNS];
    row[op.stats_row * stat::COLUMNS + stat::CLIP_COEF] = draw.number(0.1, 1.0) as f32;
    let stats = backend.upload_floats(&row)?;
    let mut words = control::INITIAL;
    words[control::STOP] = draw.one(&[stop::NONE, stop::NONE, stop::NONE, stop::TARGET_KL]);
    let mut words = backend.upload_words(&words)?;
    backend.adam_step(&op, &mut params, &grads, &mut m, &mut v, &schedule, &stats, &mut words)
}
