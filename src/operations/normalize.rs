//! Operations of [`kernels::normalize`](crate::kernels::normalize): bound by memory.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::normalize::{self as kernels, EpsilonMode};
use crate::layout::stat;

/// Magnitudes of values: ordinary ones, and those whose squares overflow or vanish.
const MAGNITUDES: [f32; 4] = [1.0, 1.0, 1e-25, 1e30];

/// [`normalize`](crate::backend::NormalizeOps::normalize).
#[derive(Debug)]
pub struct Normalize {
    op: kernels::Normalize,
    mean: f32,
    magnitude: f32,
}

impl Call for Normalize {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { op, mean, magnitude } = self;
        let n = op.offset + op.stride * op.len * op.vectors;
        let x: Vec<f32> = inputs.draw.long(n, magnitude).iter().map(|x| x + mean * magnitude).collect();
        let (mut x, mut moments) = (inputs.upload(&x)?, inputs.output(op.vectors * kernels::Normalize::MOMENTS)?);
        Ok(Box::new(move |backend| backend.normalize(&op, &mut x, &mut moments)))
    }

    /// Five operations a value; mean, variance about it and the result are three readings and a writing.
    fn work(&self) -> Work {
        let n = self.op.len * self.op.vectors;
        Work::new(5 * n, 4 * n, ("elements_per_s", n))
    }
}

impl Operation for Normalize {
    const NAME: &'static str = "normalize";
    /// Around workgroups of 64 and 256, several of them, and a workgroup a vector beyond 65 535 of them.
    const DOMAIN: &'static Domain = &Domain {
        kernel: "normalize",
        sizes: &["len", "vectors"],
        most: &[20_000, 3],
        edges: &[
            &[1, 1],
            &[2, 3],
            &[63, 2],
            &[64, 1],
            &[65, 3],
            &[255, 2],
            &[256, 1],
            &[257, 3],
            &[511, 2],
            &[513, 1],
            &[4097, 2],
            &[70_001, 1],
            &[5, 1000],
            &[3, 65_537],
        ],
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (offset, stride) = (draw.below(4), 1 + draw.below(4));
        let epsilon_mode = draw.one(&[EpsilonMode::AddToStd, EpsilonMode::AddToVariance, EpsilonMode::Max]);
        let (ddof, epsilon) = (draw.below(2) as u32, draw.one(&[1e-8, 1e-5]));
        let op = kernels::Normalize { len: sizes[0], vectors: sizes[1], offset, stride, ddof, epsilon, epsilon_mode };
        Self { op, mean: draw.one(&[0.0, -3.0, 1000.0]), magnitude: draw.one(&MAGNITUDES) }
    }
}

/// [`explained_variance`](crate::backend::NormalizeOps::explained_variance).
#[derive(Debug)]
pub struct ExplainedVariance {
    len: usize,
    mean: f32,
    magnitude: f32,
    stats_row: usize,
}

impl Call for ExplainedVariance {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { len, mean, magnitude, stats_row } = self;
        let mut column = |spread: f32| {
            let x: Vec<f32> = inputs.draw.long(len, spread).iter().map(|x| x + mean * magnitude).collect();
            inputs.upload(&x)
        };
        let (values, returns) = (column(magnitude)?, column(2.0 * magnitude)?);
        let mut stats = inputs.upload(&[0.0; 3 * stat::COLUMNS])?;
        Ok(Box::new(move |backend| backend.explained_variance(len, &values, &returns, &mut stats, stats_row)))
    }

    fn work(&self) -> Work {
        Work::new(7 * self.len, 4 * self.len, ("elements_per_s", self.len))
    }
}

impl Operation for ExplainedVariance {
    const NAME: &'static str = "explained_variance";
    const DOMAIN: &'static Domain = &Domain {
        kernel: "normalize",
        sizes: &["len"],
        most: &[20_000],
        edges: &[&[1], &[2], &[63], &[64], &[65], &[255], &[256], &[257], &[511], &[513], &[4097], &[70_001]],
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (mean, magnitude) = (draw.one(&[0.0, 100.0]), draw.one(&MAGNITUDES));
        Self { len: sizes[0], mean, magnitude, stats_row: draw.below(3) }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<Normalize>()?;
    list.add::<ExplainedVariance>()
}

/// In place, so each call normalises what is normalised already: the same work.
pub(super) fn benches(list: &mut impl Benches) {
    let len = 98_304;
    let epsilon_mode = EpsilonMode::AddToStd;
    let op = kernels::Normalize { len, vectors: 1, offset: 0, stride: 1, ddof: 1, epsilon: 1e-8, epsilon_mode };
    list.add(format!("normalize/L{len}"), true, Normalize { op, mean: 0.0, magnitude: 1.0 });
}
