//! Finding NaN and infinities without a read-back.

use crate::error::{Error, Result};
use crate::layout::control;
use crate::shape::{require_len, require_size};

/// A tensor to look through.
#[derive(Debug)]
pub struct Watched<'a, F> {
    /// What it is reported as: a number of the caller's, not 0.
    pub tensor: u32,
    /// Elements from the first on.
    pub len: usize,
    /// The buffer.
    pub x: &'a F,
}

/// Flags, an element of a tensor each: those that are not 0 say which elements may be anything.
#[derive(Debug)]
pub enum Unless<'a, F, W> {
    /// As floating-point numbers.
    Floats(&'a F),
    /// As integers.
    Words(&'a W),
}

pub(crate) fn check(tensor: u32, len: usize, x: usize, control: usize) -> Result<()> {
    if tensor == 0 {
        return Err(Error::value("tensor", "a number other than 0, which means none", tensor));
    }
    require_size("len", len)?;
    require_len("x", x, len)?;
    require_len("control", control, control::WORDS)
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{Unless, Watched, check};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::{Constants, ShaderInfo};
    use crate::shape::require_len;

    pub(crate) const SHADER: Shader =
        Shader { name: "nonfinite", source: include_str!("../../shaders/nonfinite.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[
            (NonfiniteParams::NAME, size_of::<NonfiniteParams>(), NonfiniteParams::FIELDS),
            (SmallParams::NAME, size_of::<SmallParams>(), SmallParams::FIELDS),
        ],
        entries: &[
            ("small_find", &[ALL, &[("SEVERAL", 1.0), ("UNLESS", 0.0)], UNLESS_WORDS, UNLESS_FLOATS]),
            ("find_first", &[ALL, UNLESS_WORDS, UNLESS_FLOATS]),
            ("report", &[&[]]),
        ],
    }];

    const ALL: Constants = &[("SEVERAL", 0.0), ("UNLESS", 0.0)];
    const UNLESS_WORDS: Constants = &[("SEVERAL", 0.0), ("UNLESS", 1.0)];
    const UNLESS_FLOATS: Constants = &[("SEVERAL", 0.0), ("UNLESS", 2.0)];

    const WORKGROUP_SIZE: usize = 256;
    /// Up to here, of all tensors together, one workgroup alone is faster than two dispatches.
    const SMALL: usize = 128 * WORKGROUP_SIZE;
    /// Tensors that one dispatch looks through; WebGPU promises eight storage buffers.
    const MOST_SMALL: usize = 6;
    /// Enough to fill a large GPU; each strides over what is left.
    const MOST_WORKGROUPS: usize = 1024;

    shader_params! {
        struct NonfiniteParams {
            len: u32,
            workgroups: u32,
            tensor: u32,
        }
    }

    shader_params! {
        struct SmallParams {
            lens: [[u32; 4]; 2],
            tensors: [[u32; 4]; 2],
            count: u32,
        }
    }

    pub(crate) fn record_find_nonfinite(
        context: &mut Context,
        tensors: &[Watched<'_, Buffer<f32>>],
        control: &Buffer<u32>,
    ) -> Result<()> {
        for Watched { tensor, len, x } in tensors {
            check(*tensor, *len, x.len(), control.len())?;
        }
        let mut rest = tensors;
        while let Some(first) = rest.first() {
            let together = rest.iter().scan(0, |len, next| {
                *len += next.len;
                (*len <= SMALL).then_some(())
            });
            match together.take(MOST_SMALL).count() {
                0 => {
                    record_large(context, first, control, ALL, first.x)?;
                    rest = &rest[1..];
                }
                count => {
                    let constants: Constants = if count > 1 { &[("SEVERAL", 1.0), ("UNLESS", 0.0)] } else { ALL };
                    record_small(context, &rest[..count], control, constants, first.x)?;
                    rest = &rest[count..];
                }
            }
        }
        Ok(())
    }

    pub(crate) fn record_find_nonfinite_unless(
        context: &mut Context,
        watched: &Watched<'_, Buffer<f32>>,
        unless: &Unless<'_, Buffer<f32>, Buffer<u32>>,
        control: &Buffer<u32>,
    ) -> Result<()> {
        check(watched.tensor, watched.len, watched.x.len(), control.len())?;
        let (constants, flags) = match unless {
            Unless::Floats(flags) => (UNLESS_FLOATS, (*flags).clone()),
            Unless::Words(flags) => (UNLESS_WORDS, flags.cast()),
        };
        require_len("unless", flags.len(), watched.len)?;
        if watched.len <= SMALL {
            record_small(context, std::slice::from_ref(watched), control, constants, &flags)
        } else {
            record_large(context, watched, control, constants, &flags)
        }
    }

    fn record_small(
        context: &mut Context,
        tensors: &[Watched<'_, Buffer<f32>>],
        control: &Buffer<u32>,
        constants: Constants,
        unless: &Buffer<f32>,
    ) -> Result<()> {
        let mut params = SmallParams { lens: [[0; 4]; 2], tensors: [[0; 4]; 2], count: tensors.len() as u32 };
        for (k, Watched { tensor, len, .. }) in tensors.iter().enumerate() {
            params.lens[k / 4][k % 4] = *len as u32;
            params.tensors[k / 4][k % 4] = *tensor;
        }
        let mut buffers = vec![bind("x", tensors[0].x), bind("control", control)];
        let others = ["second", "third", "fourth", "fifth", "sixth"].into_iter().zip(1..MOST_SMALL);
        buffers.extend(others.map(|(name, k)| bind(name, tensors.get(k).unwrap_or(&tensors[0]).x)));
        buffers.push(bind("flags", unless));
        context.dispatch(SHADER, "small_find", constants, &params, &buffers, Grid::Linear(1))
    }

    fn record_large(
        context: &mut Context,
        watched: &Watched<'_, Buffer<f32>>,
        control: &Buffer<u32>,
        constants: Constants,
        unless: &Buffer<f32>,
    ) -> Result<()> {
        let workgroups = watched.len.div_ceil(16 * WORKGROUP_SIZE).min(MOST_WORKGROUPS);
        let params = NonfiniteParams { len: watched.len as u32, workgroups: workgroups as u32, tensor: watched.tensor };
        let buffers = [bind("x", watched.x), bind("control", control), bind("flags", unless)];
        context.dispatch(SHADER, "find_first", constants, &params, &buffers, Grid::Linear(workgroups))?;
        context.dispatch(SHADER, "report", &[], &params, &[bind("control", control)], Grid::Linear(1))
    }
}
