//! Cases of [`kernels::random`](crate::kernels::random).

use super::runner::Runner;
use crate::backend::RandomOps;
use crate::error::Result;
use crate::kernels::random::RandomStream;

/// Around the four words that one Philox block has, the workgroup of 256, and beyond 65 535 workgroups of it.
const EDGES: &[[usize; 1]] = &[[1], [3], [4], [5], [255], [256], [257], [1023], [1025], [65_536 * 256 + 1]];
const MOST: [usize; 1] = [100_000];

pub(super) fn cases<B: RandomOps>(runner: &mut Runner<B>) -> Result<()> {
    for [len] in runner.shapes(EDGES, MOST) {
        runner.case("random_uniform", format!("len {len}"), |backend, draw| {
            let op = RandomStream { len, seed: draw.seed(), stream: draw.seed() };
            let mut out = backend.alloc_floats(len)?;
            backend.random_uniform(&op, &mut out)
        })?;
        runner.case("random_normal", format!("len {len}"), |backend, draw| {
            let op = RandomStream { len, seed: draw.seed(), stream: draw.seed() };
            let mut out = backend.alloc_floats(len)?;
            backend.random_normal(&op, &mut out)
        })?;
        // One of the longest.
        let count = (MOST[0] / len).clamp(1, 3);
        runner.case("random_permutations", format!("{count} of len {len}"), |backend, draw| {
            let (op, offset) = (RandomStream { len, seed: draw.seed(), stream: draw.seed() }, draw.below(3));
            let mut out = backend.alloc_words(offset + count * len)?;
            backend.random_permutations(&op, count, &mut out, offset)
        })?;
    }
    let nothing = RandomStream { len: 0, seed: 1, stream: 1 };
    runner.refuses("random_uniform", "len 0", |backend| {
        let mut out = backend.alloc_floats(1)?;
        backend.random_uniform(&nothing, &mut out)
    })?;
    runner.refuses("random_normal", "len 0", |backend| {
        let mut out = backend.alloc_floats(1)?;
        backend.random_normal(&nothing, &mut out)
    })?;
    runner.refuses("random_permutations", "len 0", |backend| {
        let mut out = backend.alloc_words(1)?;
        backend.random_permutations(&nothing, 1, &mut out, 0)
    })
}
