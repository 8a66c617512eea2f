//! Cases of [`kernels::normalize`](crate::kernels::normalize).

use super::runner::Runner;
use crate::backend::NormalizeOps;
use crate::error::Result;
use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::layout::stat;

/// Around workgroups of 64 and 256, and several of them.
const EDGES: &[[usize; 1]] = &[[1], [2], [63], [64], [65], [255], [256], [257], [511], [513], [4097], [70_001]];
const MOST: [usize; 1] = [20_000];

pub(super) fn cases<B: NormalizeOps>(runner: &mut Runner<B>) -> Result<()> {
    for [len] in runner.shapes(EDGES, MOST) {
        runner.case("normalize", format!("len {len}"), |backend, draw| {
            let (offset, stride, vectors) = (draw.below(4), 1 + draw.below(4), 1 + draw.below(3));
            let epsilon_mode = draw.one(&[EpsilonMode::AddToStd, EpsilonMode::AddToVariance, EpsilonMode::Max]);
            let op = Normalize {
                len,
                vectors,
                offset,
                stride,
                ddof: draw.below(2) as u32,
                epsilon: draw.one(&[1e-8, 1e-5]),
                epsilon_mode,
            };
            let mean = draw.one(&[0.0, -3.0, 1000.0]);
            let mut x = backend.upload_floats(&draw.normal(offset + stride * len * vectors, mean, 1.0))?;
            let mut moments = backend.alloc_floats(vectors * Normalize::MOMENTS)?;
            backend.normalize(&op, &mut x, &mut moments)
        })?;
        runner.case("explained_variance", format!("len {len}"), |backend, draw| {
            let mean = draw.one(&[0.0, 100.0]);
            let values = backend.upload_floats(&draw.normal(len, mean, 1.0))?;
            let returns = backend.upload_floats(&draw.normal(len, mean, 2.0))?;
            let stats_row = draw.below(3);
            let mut stats = backend.upload_floats(&[0.0; 3 * stat::COLUMNS])?;
            backend.explained_variance(len, &values, &returns, &mut stats, stats_row)
        })?;
    }
    runner.refuses("normalize", "len 0", |backend| {
        let op =
            Normalize { len: 0, vectors: 1, offset: 0, stride: 1, ddof: 0, epsilon: 1e-8, epsilon_mode: EpsilonMode::AddToStd };
        let (mut x, mut moments) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(2)?);
        backend.normalize(&op, &mut x, &mut moments)
    })?;
    runner.refuses("explained_variance", "len 0", |backend| {
        let (x, mut stats) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; stat::COLUMNS])?);
        backend.explained_variance(0, &x, &x, &mut stats, 0)
    })
}
