//! Cases of [`kernels::nonfinite`](crate::kernels::nonfinite).

use super::runner::Runner;
use crate::backend::NonfiniteOps;
use crate::error::Result;
use crate::kernels::nonfinite::Watched;
use crate::layout::control;

/// Around the workgroup of 256, and beyond 65 535 workgroups of it.
const EDGES: &[[usize; 1]] = &[[1], [2], [255], [256], [257], [1025], [65_536 * 256 + 1]];
const MOST: [usize; 1] = [100_000];

/// A code that a caller might use.
const TENSOR: u32 = 3;

pub(super) fn cases<B: NonfiniteOps>(runner: &mut Runner<B>) -> Result<()> {
    for [len] in runner.shapes(EDGES, MOST) {
        for planted in [0, 1, 3] {
            runner.case("find_nonfinite", format!("len {len}, {planted} planted"), |backend, draw| {
                let mut x = draw.long(len, 1.0);
                for _ in 0..planted {
                    x[draw.below(len)] = draw.one(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                }
                let x = backend.upload_floats(&x)?;
                let mut words = backend.upload_words(&control::INITIAL)?;
                backend.find_nonfinite(&[Watched { tensor: TENSOR, len, x: &x }], &mut words)
            })?;
        }
    }
    for count in [2, 6, 7] {
        runner.case("find_nonfinite", format!("{count} tensors"), |backend, draw| {
            let lens: Vec<usize> = (0..count).map(|_| 1 + draw.below(3000)).collect();
            let (bad, at) = (draw.below(count), draw.below(2));
            let mut upload = |(k, &len): (usize, &usize)| {
                let mut x = draw.long(len, 1.0);
                // Two of them, of which the earlier counts.
                if k == bad || k + 1 == count {
                    x[at.min(len - 1)] = f32::NAN;
                }
                backend.upload_floats(&x)
            };
            let buffers = lens.iter().enumerate().map(&mut upload).collect::<Result<Vec<_>>>()?;
            let tensors = |(k, x)| Watched { tensor: k as u32 + 1, len: lens[k], x };
            let mut words = backend.upload_words(&control::INITIAL)?;
            backend.find_nonfinite(&buffers.iter().enumerate().map(tensors).collect::<Vec<_>>(), &mut words)
        })?;
    }
    runner.refuses("find_nonfinite", "len 0", |backend| {
        let (x, mut words) = (backend.upload_floats(&[0.0])?, backend.upload_words(&control::INITIAL)?);
        backend.find_nonfinite(&[Watched { tensor: TENSOR, len: 0, x: &x }], &mut words)
    })
}
