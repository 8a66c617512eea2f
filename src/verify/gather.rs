//! Cases of [`kernels::gather`](crate::kernels::gather).

use super::runner::Runner;
use crate::backend::GatherOps;
use crate::error::Result;
use crate::kernels::gather::Gather;
use crate::layout::sample;

/// `[rows, width, count]`: around the workgroup of 256, and beyond 65 535 workgroups of it.
const EDGES: &[[usize; 3]] = &[[1, 1, 1], [7, 1, 255], [300, 1, 256], [300, 1, 257], [5, 3, 1000], [3, 4097, 4100]];
const MOST: [usize; 3] = [3000, 70, 3000];

pub(super) fn cases<B: GatherOps>(runner: &mut Runner<B>) -> Result<()> {
    for [rows, width, count] in runner.shapes(EDGES, MOST) {
        runner.case("gather_floats", format!("rows {rows}, width {width}, count {count}"), |backend, draw| {
            let start = draw.below(3);
            let source = backend.upload_floats(&draw.long(rows * width, 1.0))?;
            let indices = backend.upload_words(&draw.words(start + count, rows))?;
            let mut target = backend.alloc_floats(count * width)?;
            backend.gather_floats(&Gather { rows, width, start, count }, &source, &indices, &mut target)
        })?;
    }
    for [rows, width, count] in runner.shapes(&EDGES[..5], MOST) {
        runner.case("gather_words", format!("rows {rows}, width {width}, count {count}"), |backend, draw| {
            let start = draw.below(3);
            let source = backend.upload_words(&draw.words(rows * width, u32::MAX as usize))?;
            let indices = backend.upload_words(&draw.words(start + count, rows))?;
            let mut target = backend.alloc_words(count * width)?;
            backend.gather_words(&Gather { rows, width, start, count }, &source, &indices, &mut target)
        })?;
        runner.case("gather_samples", format!("rows {rows}, count {count}"), |backend, draw| {
            let start = draw.below(3);
            let mut column = || backend.upload_floats(&draw.floats(rows, 1.0));
            let (old_logp, advantages, returns, old_values) = (column()?, column()?, column()?, column()?);
            let indices = backend.upload_words(&draw.words(start + count, rows))?;
            let mut samples = backend.alloc_floats(count * sample::COLUMNS)?;
            let op = Gather { rows, width: 1, start, count };
            backend.gather_samples(&op, &indices, &old_logp, &advantages, &returns, &old_values, &mut samples)
        })?;
    }
    let fits = Gather { rows: 1, width: 1, start: 0, count: 1 };
    for (what, op) in [
        ("rows 0", Gather { rows: 0, ..fits }),
        ("width 0", Gather { width: 0, ..fits }),
        ("count 0", Gather { count: 0, ..fits }),
    ] {
        runner.refuses("gather_floats", what, |backend| {
            let (source, indices) = (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?);
            let mut target = backend.alloc_floats(1)?;
            backend.gather_floats(&op, &source, &indices, &mut target)
        })?;
    }
    runner.refuses("alloc_floats", "len 0", |backend| backend.alloc_floats(0).map(drop))?;
    runner.refuses("alloc_words", "len 0", |backend| backend.alloc_words(0).map(drop))
}
