//! Operations of [`kernels::random`](crate::kernels::random): bound by integer arithmetic.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::random::RandomStream;

/// Around the four words of a Philox block, the workgroup of 256, and beyond 65 535 workgroups of it.
const STREAMS: Domain = Domain {
    kernel: "random",
    sizes: &["len"],
    most: &[100_000],
    edges: &[&[1], &[3], &[4], &[5], &[255], &[256], &[257], &[1023], &[1025], &[65_536 * 256 + 1]],
};

fn drawn(sizes: &[usize], draw: &mut Draw) -> RandomStream {
    RandomStream { len: sizes[0], seed: draw.seed(), stream: draw.seed() }
}

/// [`random_uniform`](crate::backend::RandomOps::random_uniform).
#[derive(Debug)]
pub struct Uniform(RandomStream);

impl Call for Uniform {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.0;
        let mut out = inputs.output(op.len)?;
        Ok(Box::new(move |backend| backend.random_uniform(&op, &mut out)))
    }

    fn work(&self) -> Work {
        Work::new(0, self.0.len, ("elements_per_s", self.0.len))
    }
}

impl Operation for Uniform {
    const NAME: &'static str = "random_uniform";
    const DOMAIN: &'static Domain = &STREAMS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(drawn(sizes, draw))
    }
}

/// [`random_normal`](crate::backend::RandomOps::random_normal).
#[derive(Debug)]
pub struct Normal(RandomStream);

impl Call for Normal {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.0;
        let mut out = inputs.output(op.len)?;
        Ok(Box::new(move |backend| backend.random_normal(&op, &mut out)))
    }

    fn work(&self) -> Work {
        Work::new(0, self.0.len, ("elements_per_s", self.0.len))
    }
}

impl Operation for Normal {
    const NAME: &'static str = "random_normal";
    const DOMAIN: &'static Domain = &STREAMS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(drawn(sizes, draw))
    }
}

/// [`random_permutations`](crate::backend::RandomOps::random_permutations).
#[derive(Debug)]
pub struct Permutations {
    op: RandomStream,
    count: usize,
    offset: usize,
}

impl Call for Permutations {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { op, count, offset } = self;
        let mut out = inputs.output_words(offset + count * op.len)?;
        Ok(Box::new(move |backend| backend.random_permutations(&op, count, &mut out, offset)))
    }

    fn work(&self) -> Work {
        let words = self.count * self.op.len;
        Work::new(0, words, ("elements_per_s", words))
    }
}

impl Operation for Permutations {
    const NAME: &'static str = "random_permutations";
    const DOMAIN: &'static Domain = &Domain {
        sizes: &["len", "count"],
        most: &[30_000, 3],
        edges: &[
            &[1, 1],
            &[2, 3],
            &[4, 1],
            &[5, 3],
            &[15, 2],
            &[16, 2],
            &[17, 2],
            &[255, 1],
            &[256, 2],
            &[257, 3],
            &[1025, 1],
            &[5, 65_537],
            &[65_536 * 256 + 1, 1],
        ],
        ..STREAMS
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self { op: drawn(sizes, draw), count: sizes[1], offset: draw.below(3) }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<Uniform>()?;
    list.add::<Normal>()?;
    list.add::<Permutations>()
}

pub(super) fn benches(list: &mut impl Benches) {
    let stream = |len| RandomStream { len, seed: 1, stream: 0 };
    list.add("random_permutation/L131072".to_owned(), true, Permutations { op: stream(131_072), count: 1, offset: 0 });
    list.add("random_normal/L1179648".to_owned(), true, Normal(stream(98_304 * 12)));
}
