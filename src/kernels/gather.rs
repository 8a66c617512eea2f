//! Minibatches by an index buffer.

use crate::error::{Error, Result};
use crate::layout::sample;
use crate::operands::{Length, operands, require_lens};
use crate::shape::{elements, require_len, require_size};
use crate::tolerance::Tolerance;

/// Rows `indices[start .. start + count]` of a matrix `[rows, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// Rows of the source.
    pub rows: usize,
    /// Columns.
    pub width: usize,
    /// First index to use.
    pub start: usize,
    /// How many indices to use: rows of the target.
    pub count: usize,
}

operands! {
    /// Operands of [`gather_samples`](crate::backend::GatherOps::gather_samples).
    pub struct SamplesOperands<F, W> {
        /// Row numbers, from `start` on.
        indices: Words,
        /// `[rows]`: log-probabilities of the actions under the policy that took them.
        old_logp: Floats,
        /// `[rows]`.
        advantages: Floats,
        /// `[rows]`.
        returns: Floats,
        /// `[rows]`: values predicted when the actions were taken.
        old_values: Floats,
        /// `[count, 4]`, see [`sample`].
        samples: FloatsMut,
    }
}

impl Gather {
    /// Copies have no error.
    pub const TOLERANCE: Tolerance = Tolerance::Exact;

    fn check_sizes(&self, indices: usize) -> Result<()> {
        require_size("rows", self.rows)?;
        require_size("width", self.width)?;
        require_size("count", self.count)?;
        elements("source", self.rows, self.width)?;
        elements("target", self.count, self.width)?;
        let end = self.start.checked_add(self.count).ok_or_else(|| Error::shape("start", "start + count to fit", self.start))?;
        require_len("indices", indices, end)
    }

    /// Checks the buffers' lengths for gathering one matrix.
    pub(crate) fn check_rows(&self, source: usize, indices: usize, target: usize) -> Result<()> {
        self.check_sizes(indices)?;
        require_len("source", source, self.rows * self.width)?;
        require_len("target", target, self.count * self.width)
    }

    /// Checks the buffers' lengths for packing four columns.
    pub(crate) fn check_samples<F: Length, W: Length>(&self, operands: &SamplesOperands<'_, F, W>) -> Result<()> {
        if self.width != 1 {
            return Err(Error::shape("width", "1 (columns are vectors)", self.width));
        }
        self.check_sizes(operands.indices.len())?;
        let samples = elements("samples", self.count, sample::COLUMNS)?;
        require_lens!(operands, self.rows => old_logp, advantages, returns, old_values; samples => samples);
        Ok(())
    }
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{Gather, SamplesOperands};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader =
        Shader { name: "gather", source: include_str!("../../shaders/gather.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(GatherParams::NAME, size_of::<GatherParams>(), GatherParams::FIELDS)],
        entries: &[("rows", &[&[]]), ("pack_samples", &[&[]])],
    }];

    /// The shader's default. 256 is the most that WebGPU promises.
    const WORKGROUP_SIZE: usize = 256;

    shader_params! {
        struct GatherParams {
            rows: u32,
            width: u32,
            start: u32,
            count: u32,
        }
    }

    fn params(op: &Gather) -> GatherParams {
        GatherParams { rows: op.rows as u32, width: op.width as u32, start: op.start as u32, count: op.count as u32 }
    }

    pub(crate) fn record_rows(
        context: &mut Context,
        op: &Gather,
        source: &Buffer<u32>,
        indices: &Buffer<u32>,
        target: &Buffer<u32>,
    ) -> Result<()> {
        op.check_rows(source.len(), indices.len(), target.len())?;
        let buffers = [bind("source", source), bind("indices", indices), bind("target_rows", target)];
        context.dispatch(SHADER, "rows", &[], &params(op), &buffers, Grid::covering(op.count * op.width, WORKGROUP_SIZE))
    }

    pub(crate) fn record_pack_samples(
        context: &mut Context,
        op: &Gather,
        operands: &SamplesOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check_samples(operands)?;
        let SamplesOperands { indices, old_logp, advantages, returns, old_values, samples } = operands;
        let buffers = [
            bind("indices", indices),
            bind("old_logp", old_logp),
            bind("advantages", advantages),
            bind("returns", returns),
            bind("old_values", old_values),
            bind("samples", samples),
        ];
        context.dispatch(SHADER, "pack_samples", &[], &params(op), &buffers, Grid::covering(op.count, WORKGROUP_SIZE))
    }
}
