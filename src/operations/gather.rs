//! Operations of [`kernels::gather`](crate::kernels::gather): bound by memory.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::gather::{self as kernels, SamplesOperands};
use crate::layout::sample;

/// Around the workgroup of 256, and beyond 65 535 workgroups of it.
const ROWS: Domain = Domain {
    kernel: "gather",
    sizes: &["rows", "width", "count"],
    most: &[3000, 70, 3000],
    edges: &[&[1, 1, 1], &[7, 1, 255], &[300, 1, 256], &[300, 1, 257], &[5, 3, 1000], &[37, 2, 65], &[3, 4097, 4100]],
};

fn drawn(sizes: &[usize], draw: &mut Draw) -> kernels::Gather {
    kernels::Gather { rows: sizes[0], width: sizes[1], start: draw.below(3), count: sizes[2] }
}

/// [`gather_floats`](crate::backend::GatherOps::gather_floats).
#[derive(Debug)]
pub struct GatherFloats(kernels::Gather);

impl Call for GatherFloats {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.0;
        let source = inputs.floats(op.rows * op.width, 1.0)?;
        let indices = inputs.words(op.start + op.count, op.rows)?;
        let mut target = inputs.output(op.count * op.width)?;
        Ok(Box::new(move |backend| backend.gather_floats(&op, &source, &indices, &mut target)))
    }

    /// Each element is read and written, each index read.
    fn work(&self) -> Work {
        Work::new(0, self.0.count * (2 * self.0.width + 1), ("samples_per_s", self.0.count))
    }
}

impl Operation for GatherFloats {
    const NAME: &'static str = "gather_floats";
    const DOMAIN: &'static Domain = &ROWS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(drawn(sizes, draw))
    }
}

/// [`gather_words`](crate::backend::GatherOps::gather_words).
#[derive(Debug)]
pub struct GatherWords(kernels::Gather);

impl Call for GatherWords {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.0;
        let source = inputs.words(op.rows * op.width, u32::MAX as usize)?;
        let indices = inputs.words(op.start + op.count, op.rows)?;
        let mut target = inputs.output_words(op.count * op.width)?;
        Ok(Box::new(move |backend| backend.gather_words(&op, &source, &indices, &mut target)))
    }

    fn work(&self) -> Work {
        GatherFloats(self.0).work()
    }
}

impl Operation for GatherWords {
    const NAME: &'static str = "gather_words";
    const DOMAIN: &'static Domain = &ROWS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(drawn(sizes, draw))
    }
}

/// [`gather_samples`](crate::backend::GatherOps::gather_samples).
#[derive(Debug)]
pub struct GatherSamples(kernels::Gather);

impl Call for GatherSamples {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let op = self.0;
        let mut column = || inputs.floats(op.rows, 1.0);
        let (old_logp, advantages, returns, old_values) = (column()?, column()?, column()?, column()?);
        let indices = inputs.words(op.start + op.count, op.rows)?;
        let mut samples = inputs.output(op.count * sample::COLUMNS)?;
        Ok(Box::new(move |backend| {
            backend.gather_samples(
                &op,
                SamplesOperands {
                    indices: &indices,
                    old_logp: &old_logp,
                    advantages: &advantages,
                    returns: &returns,
                    old_values: &old_values,
                    samples: &mut samples,
                },
            )
        }))
    }

    fn work(&self) -> Work {
        Work::new(0, self.0.count * (2 * sample::COLUMNS + 1), ("samples_per_s", self.0.count))
    }
}

impl Operation for GatherSamples {
    const NAME: &'static str = "gather_samples";
    const DOMAIN: &'static Domain = &Domain {
        kernel: "gather",
        sizes: &["rows", "count"],
        most: &[3000, 3000],
        edges: &[&[1, 1], &[7, 255], &[300, 256], &[300, 257]],
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(drawn(&[sizes[0], 1, sizes[1]], draw))
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<GatherFloats>()?;
    list.add::<GatherWords>()?;
    list.add::<GatherSamples>()
}

/// A minibatch's rows of observations, at the sizes of large updates.
pub(super) fn benches(list: &mut impl Benches) {
    for (rows, width, count) in [(98_304, 48, 24_576), (131_072, 64, 32_768)] {
        let op = kernels::Gather { rows, width, start: 0, count };
        list.add(format!("gather/R{rows}_W{width}_C{count}"), true, GatherFloats(op));
    }
}
