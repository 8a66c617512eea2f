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
    use super::{Watched, check};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader =
        Shader { name: "nonfinite", source: include_str!("../../shaders/nonfinite.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[
            (NonfiniteParams::NAME, size_of::<NonfiniteParams>(), NonfiniteParams::FIELDS),
            (SmallParams::NAME, size_of::<SmallParams>(), SmallParams::FIELDS),
        ],
        entries: &[("small_find", &[&[("SEVERAL", 0.0)], &[("SEVERAL", 1.0)]]), ("find_first", &[&[]]), ("report", &[&[]])],
    }];

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
                    record_large(context, first, control)?;
                    rest = &rest[1..];
                }
                count => {
                    record_small(context, &rest[..count], control)?;
                    rest = &rest[count..];
                }
            }
        }
        Ok(())
    }

    fn record_small(context: &mut Context, tensors: &[Watched<'_, Buffer<f32>>], control: &Buffer<u32>) -> Result<()> {
        let mut params = SmallParams { lens: [[0; 4]; 2], tensors: [[0; 4]; 2], count: tensors.len() as u32 };
        for (k, Watched { tensor, len, .. }) in tensors.iter().enumerate() {
            params.lens[k / 4][k % 4] = *len as u32;
            params.tensors[k / 4][k % 4] = *tensor;
        }
        let mut buffers = vec![bind(1, tensors[0].x), bind(2, control)];
        buffers.extend((1..MOST_SMALL).map(|k| bind(2 + k as u32, tensors.get(k).unwrap_or(&tensors[0]).x)));
        context.dispatch(
            SHADER,
            "small_find",
            &[("SEVERAL", f64::from(u8::from(tensors.len() > 1)))],
            &params,
            &buffers,
            Grid::Linear(1),
        )
    }

    fn record_large(context: &mut Context, watched: &Watched<'_, Buffer<f32>>, control: &Buffer<u32>) -> Result<()> {
        let workgroups = watched.len.div_ceil(16 * WORKGROUP_SIZE).min(MOST_WORKGROUPS);
        let params = NonfiniteParams { len: watched.len as u32, workgroups: workgroups as u32, tensor: watched.tensor };
        let buffers = [bind(1, watched.x), bind(2, control)];
        context.dispatch(SHADER, "find_first", &[], &params, &buffers, Grid::Linear(workgroups))?;
        context.dispatch(SHADER, "report", &[], &params, &[bind(2, control)], Grid::Linear(1))
    }
}
