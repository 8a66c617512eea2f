//! Finding NaN and infinities without a read-back.

use crate::error::{Error, Result};
use crate::kernels::optimizer::control;
use crate::shape::{require_len, require_size};

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
    use super::check;
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader =
        Shader { name: "nonfinite", source: include_str!("../../shaders/nonfinite.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(NonfiniteParams::NAME, size_of::<NonfiniteParams>(), NonfiniteParams::FIELDS)],
        entries: &[("small_find", &[&[]]), ("find_first", &[&[]]), ("report", &[&[]])],
    }];

    const WORKGROUP_SIZE: usize = 256;
    /// Up to here one workgroup alone is faster than two dispatches.
    const SMALL: usize = 128 * WORKGROUP_SIZE;
    /// Enough to fill a large GPU; each strides over what is left.
    const MOST_WORKGROUPS: usize = 1024;

    shader_params! {
        struct NonfiniteParams {
            len: u32,
            workgroups: u32,
            tensor: u32,
        }
    }

    pub(crate) fn record_find_nonfinite(
        context: &mut Context,
        tensor: u32,
        len: usize,
        x: &Buffer<f32>,
        control: &Buffer<u32>,
    ) -> Result<()> {
        check(tensor, len, x.len(), control.len())?;
        let workgroups = len.div_ceil(16 * WORKGROUP_SIZE).min(MOST_WORKGROUPS);
        let params = NonfiniteParams { len: len as u32, workgroups: workgroups as u32, tensor };
        let buffers = [bind(1, x), bind(2, control)];
        if len <= SMALL {
            return context.dispatch(SHADER, "small_find", &[], &params, &buffers, Grid::Linear(1));
        }
        context.dispatch(SHADER, "find_first", &[], &params, &buffers, Grid::Linear(workgroups))?;
        context.dispatch(SHADER, "report", &[], &params, &[bind(2, control)], Grid::Linear(1))
    }
}
