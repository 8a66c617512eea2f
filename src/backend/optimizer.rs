//! The operations of [`kernels::optimizer`](crate::kernels::optimizer) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::optimizer::{self as kernels, Adam, GradientNorm};
use crate::layout::{control, schedule, stat};
use crate::real::Real;
use crate::reference::optimizer as reference;
use crate::tolerance::Tolerance;

/// Clipping and the optimiser.
pub trait OptimizerOps: Memory {
    /// ‖g‖₂ over all `op.len` elements into `stats[row, GRAD_NORM]`, min(1, max_grad_norm/(‖g‖ + ε)) into `stats[row, CLIP_COEF]`.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a limit that is not positive; a buffer too small.
    fn gradient_norm(&mut self, op: &GradientNorm, grads: &Self::Floats, stats: &mut Self::Floats) -> Result<()>;

    /// One step on `params`, `m` and `v`, with the gradient multiplied by `stats[row, CLIP_COEF]`; adds 1 to `control[STEPS_DONE]`. Does nothing at
    /// all where `control[STOP]` is set.
    ///
    /// # Errors
    /// As [`gradient_norm`](Self::gradient_norm).
    fn adam_step(
        &mut self,
        op: &Adam,
        params: &mut Self::Floats,
        grads: &Self::Floats,
        m: &mut Self::Floats,
        v: &mut Self::Floats,
        schedule: &Self::Floats,
        stats: &Self::Floats,
        control: &mut Self::Words,
    ) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl OptimizerOps for Gpu {
    fn gradient_norm(&mut self, op: &GradientNorm, grads: &Buffer<f32>, stats: &mut Buffer<f32>) -> Result<()> {
        kernels::record_gradient_norm(&mut self.context, op, grads, stats)
    }

    fn adam_step(
        &mut self,
        op: &Adam,
        params: &mut Buffer<f32>,
        grads: &Buffer<f32>,
        m: &mut Buffer<f32>,
        v: &mut Buffer<f32>,
        schedule: &Buffer<f32>,
        stats: &Buffer<f32>,
        control: &mut Buffer<u32>,
    ) -> Result<()> {
        let state = [("params", &*params), ("grads", grads), ("m", &*m), ("v", &*v)];
        kernels::record_adam_step(&mut self.context, op, state, schedule, stats, control)
    }
}

impl<T: Real> OptimizerOps for Cpu<T> {
    fn gradient_norm(&mut self, op: &GradientNorm, grads: &Vec<T>, stats: &mut Vec<T>) -> Result<()> {
        op.check(grads.len(), stats.len())?;
        reference::gradient_norm(op, grads, stats);
        Ok(())
    }

    fn adam_step(
        &mut self,
        op: &Adam,
        params: &mut Vec<T>,
        grads: &Vec<T>,
        m: &mut Vec<T>,
        v: &mut Vec<T>,
        schedule: &Vec<T>,
        stats: &Vec<T>,
        control: &mut Vec<u32>,
    ) -> Result<()> {
        let state = [("params", params.len()), ("grads", grads.len()), ("m", m.len()), ("v", v.len())];
        op.check(state, schedule.len(), stats.len(), control.len())?;
        reference::adam_step(op, params, grads, m, v, schedule, stats, control);
        Ok(())
    }
}

impl<A: OptimizerOps, B: OptimizerOps> OptimizerOps for CrossCheck<A, B> {
    fn gradient_norm(&mut self, op: &GradientNorm, grads: &Self::Floats, stats: &mut Self::Floats) -> Result<()> {
        self.a.gradient_norm(op, &grads.a, &mut stats.a)?;
        self.b.gradient_norm(op, &grads.b, &mut stats.b)?;
        let row = op.stats_row * stat::COLUMNS;
        for (column, tolerance) in [(stat::GRAD_NORM, op.norm_tolerance()), (stat::CLIP_COEF, op.clip_coef_tolerance())] {
            self.compare("gradient_norm", "stats", stats, row + column..row + column + 1, &tolerance)?;
        }
        Ok(())
    }

    fn adam_step(
        &mut self,
        op: &Adam,
        params: &mut Self::Floats,
        grads: &Self::Floats,
        m: &mut Self::Floats,
        v: &mut Self::Floats,
        schedule: &Self::Floats,
        stats: &Self::Floats,
        control: &mut Self::Words,
    ) -> Result<()> {
        self.a.adam_step(op, &mut params.a, &grads.a, &mut m.a, &mut v.a, &schedule.a, &stats.a, &mut control.a)?;
        // After A, which has checked that all this is there to read; from B, which A has not changed.
        let before = [&params.b, &grads.b, &m.b, &v.b].map(|buffer| self.b.read_f64(buffer, 0, op.len));
        let [old_params, old_grads, old_m, old_v] = before;
        let row = self.b.read_f64(&schedule.b, op.schedule_row * schedule::COLUMNS, schedule::COLUMNS)?;
        let clip_coef = self.b.read_f64(&stats.b, op.stats_row * stat::COLUMNS + stat::CLIP_COEF, 1)?[0];
        let bounds = op.bounds(&old_params?, &old_grads?, &old_m?, &old_v?, &row, clip_coef);
        self.b.adam_step(op, &mut params.b, &grads.b, &mut m.b, &mut v.b, &schedule.b, &stats.b, &mut control.b)?;
        self.compare("adam_step", "m", m, 0..op.len, &Tolerance::PerElement(bounds.m))?;
        self.compare("adam_step", "v", v, 0..op.len, &Tolerance::PerElement(bounds.v))?;
        self.compare("adam_step", "params", params, 0..op.len, &Tolerance::PerElement(bounds.params))?;
        self.compare_words("adam_step", "control", control, 0..control::WORDS)
    }
}
