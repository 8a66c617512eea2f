//! Cases of [`kernels::normalize`](crate::kernels::normalize).

use super::runner::Runner;
use crate::backend::NormalizeOps;
use crate::error::Result;
use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::layout::stat;

/// Around workgroups of 64 and 256, and several of them.
const EDGES: &[[usize; 1]] = &[[1], [2], [63], [64], [65], [255], [256], [257], [511], [513], [4097], [70_001]];
const MOST: [usize; 1] = [20_000];
/// Vectors and their length: a workgroup each, beyond 65 535 of them.
const GROUPS: &[[usize; 2]] = &[[1000, 5], [65_537, 3]];
const MOST_GROUPS: [usize; 2] = [300, 40];
/// Around them, and where squares would overflow or vanish.
const SIZES: &[f32] = &[1.0, 1.0, 1e-25, 1e30];

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
            let (mean, size) = (draw.one(&[0.0, -3.0, 1000.0]), draw.one(SIZES));
            let mut x = backend.upload_floats(&draw.normal(offset + stride * len * vectors, mean * size, size))?;
            let mut moments = backend.alloc_floats(vectors * Normalize::MOMENTS)?;
            backend.normalize(&op, &mut x, &mut moments)
        })?;
        runner.case("explained_variance", format!("len {len}"), |backend, draw| {
            let (mean, size) = (draw.one(&[0.0, 100.0]), draw.one(SIZES));
            let values = backend.upload_floats(&draw.normal(len, mean * size, size))?;
            let returns = backend.upload_floats(&draw.normal(len, mean * size, 2.0 * size))?;
            let stats_row = draw.below(3);
            let mut stats = backend.upload_floats(&[0.0; 3 * stat::COLUMNS])?;
            backend.explained_variance(len, &values, &returns, &mut stats, stats_row)
        })?;
    }
    for [vectors, len] in runner.shapes(GROUPS, MOST_GROUPS) {
        runner.case("normalize", format!("{vectors} vectors of {len}"), |backend, draw| {
            let (ddof, epsilon_mode) = (draw.below(2) as u32, EpsilonMode::AddToStd);
            let op = Normalize { len, vectors, offset: 0, stride: 1, ddof, epsilon: 1e-5, epsilon_mode };
            let mut x = backend.upload_floats(&draw.normal(len * vectors, 0.5, 1.0))?;
            let mut moments = backend.alloc_floats(vectors * Normalize::MOMENTS)?;
            backend.normalize(&op, &mut x, &mut moments)
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
