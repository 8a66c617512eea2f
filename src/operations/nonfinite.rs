//! Operations of [`kernels::nonfinite`](crate::kernels::nonfinite): bound by memory where there is nothing to find, as nearly always.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::nonfinite::{Unless, Watched};
use crate::layout::control;

/// Around the workgroup of 256, and beyond 65 535 workgroups of it.
const TENSORS: Domain = Domain {
    kernel: "nonfinite",
    sizes: &["len"],
    most: &[100_000],
    edges: &[&[1], &[2], &[255], &[256], &[257], &[1025], &[40_000], &[65_536 * 256 + 1]],
};
const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// [`find_nonfinite`](crate::backend::NonfiniteOps::find_nonfinite) in one tensor or several, with some values planted.
#[derive(Debug)]
pub struct FindNonfinite {
    lens: Vec<usize>,
    planted: usize,
}

impl Call for FindNonfinite {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let lens = self.lens.clone();
        let mut tensors: Vec<Vec<f32>> = lens.iter().map(|&len| inputs.draw.long(len.max(1), 1.0)).collect();
        for _ in 0..self.planted {
            let tensor = inputs.draw.below(tensors.len());
            let at = inputs.draw.below(tensors[tensor].len());
            tensors[tensor][at] = inputs.draw.one(&NOT_FINITE);
        }
        let tensors = tensors.iter().map(|x| inputs.upload(x)).collect::<Result<Vec<_>>>()?;
        let mut control = inputs.backend.upload_words(&control::INITIAL)?;
        Ok(Box::new(move |backend| {
            let watched = tensors.iter().zip(&lens).zip(3..).map(|((x, &len), tensor)| Watched { tensor, len, x });
            backend.find_nonfinite(&watched.collect::<Vec<_>>(), &mut control)
        }))
    }

    fn work(&self) -> Work {
        let words = self.lens.iter().sum();
        Work::new(0, words, ("elements_per_s", words))
    }
}

impl Operation for FindNonfinite {
    const NAME: &'static str = "find_nonfinite";
    const DOMAIN: &'static Domain = &Domain {
        sizes: &["len", "tensors"],
        most: &[30_000, 7],
        edges: &[
            &[1, 1],
            &[2, 1],
            &[255, 1],
            &[256, 1],
            &[257, 1],
            &[1025, 1],
            &[40_000, 1],
            &[65_536 * 256 + 1, 1],
            &[3000, 2],
            &[300, 6],
            &[3000, 7],
            &[33_000, 2],
        ],
        ..TENSORS
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let lens = (0..sizes[1].max(1)).map(|_| if sizes[1] > 1 { 1 + draw.below(sizes[0].max(1)) } else { sizes[0] }).collect();
        Self { lens: if sizes[1] == 0 { vec![0] } else { lens }, planted: draw.one(&[0, 1, 2, 3]) }
    }
}

/// [`find_nonfinite_unless`](crate::backend::NonfiniteOps::find_nonfinite_unless).
#[derive(Debug)]
pub struct FindNonfiniteUnless {
    len: usize,
    flags_are_floats: bool,
}

impl Call for FindNonfiniteUnless {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { len, flags_are_floats } = self;
        let mut x = inputs.draw.long(len.max(1), 1.0);
        let mut flags = vec![0; len.max(1)];
        // Three that may be anything, and one that may not, before them or behind.
        for flag in [1, 1 << 31, u32::MAX, 0] {
            let at = inputs.draw.below(flags.len());
            (x[at], flags[at]) = (inputs.draw.one(&NOT_FINITE), flag);
        }
        let floats: Vec<f32> = flags.iter().map(|&flag| if flag == 0 { -0.0 } else { f32::from_bits(flag >> 2) }).collect();
        let (words, floats, x) = (inputs.backend.upload_words(&flags)?, inputs.upload(&floats)?, inputs.upload(&x)?);
        let mut control = inputs.backend.upload_words(&control::INITIAL)?;
        Ok(Box::new(move |backend| {
            let unless = if flags_are_floats { Unless::Floats(&floats) } else { Unless::Words(&words) };
            backend.find_nonfinite_unless(&Watched { tensor: 3, len, x: &x }, &unless, &mut control)
        }))
    }

    fn work(&self) -> Work {
        Work::new(0, 2 * self.len, ("elements_per_s", self.len))
    }
}

impl Operation for FindNonfiniteUnless {
    const NAME: &'static str = "find_nonfinite_unless";
    const DOMAIN: &'static Domain = &TENSORS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self { len: sizes[0], flags_are_floats: draw.coin() }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<FindNonfinite>()?;
    list.add::<FindNonfiniteUnless>()
}

pub(super) fn benches(list: &mut impl Benches) {
    list.add("nonfinite/L8388608".to_owned(), true, FindNonfinite { lens: vec![1 << 23], planted: 0 });
}
