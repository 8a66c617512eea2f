//! The operations of [`kernels::normalize`](crate::kernels::normalize) on every backend.

use super::{Cpu, CrossCheck, Length, Memory};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::cpu::normalize as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::normalize::{self as kernels, Normalize};
use crate::reference::normalize as reference;

/// Moments of long vectors.
pub trait NormalizeOps: Memory {
    /// Normalises in place and writes `[mean, std]` of what was there to `moments` `[vectors, 2]`.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; ddof above 1; a negative or non-finite ε; a buffer too small.
    fn normalize(&mut self, op: &Normalize, x: &mut Self::Floats, moments: &mut Self::Floats) -> Result<()>;

    /// 1 − Var(returns − values)/Var(returns), population variances, into `stats[stats_row, EXPLAINED_VARIANCE]`; NaN where the returns
    /// have no variance (as CleanRL).
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize).
    fn explained_variance(
        &mut self,
        len: usize,
        values: &Self::Floats,
        returns: &Self::Floats,
        stats: &mut Self::Floats,
        stats_row: usize,
    ) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl NormalizeOps for Gpu {
    fn normalize(&mut self, op: &Normalize, x: &mut Buffer<f32>, moments: &mut Buffer<f32>) -> Result<()> {
        kernels::record_normalize(&mut self.context, self.variant != Variant::Plain, op, x, moments)
    }

    fn explained_variance(
        &mut self,
        len: usize,
        values: &Buffer<f32>,
        returns: &Buffer<f32>,
        stats: &mut Buffer<f32>,
        stats_row: usize,
    ) -> Result<()> {
        let whole = self.variant != Variant::Plain;
        kernels::record_explained_variance(&mut self.context, whole, len, values, returns, stats, stats_row)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl NormalizeOps for Cpu<$real> {
            fn normalize(&mut self, op: &Normalize, x: &mut Vec<$real>, moments: &mut Vec<$real>) -> Result<()> {
                op.check(x.len(), moments.len())?;
                $arithmetic::normalize(op, x, moments);
                Ok(())
            }

            fn explained_variance(
                &mut self,
                len: usize,
                values: &Vec<$real>,
                returns: &Vec<$real>,
                stats: &mut Vec<$real>,
                stats_row: usize,
            ) -> Result<()> {
                let index = kernels::check_explained_variance(len, values.len(), returns.len(), stats.len(), stats_row)?;
                stats[index] = $arithmetic::explained_variance(&values[..len], &returns[..len]);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

impl<A: NormalizeOps, B: NormalizeOps> NormalizeOps for CrossCheck<A, B> {
    fn normalize(&mut self, op: &Normalize, x: &mut Self::Floats, moments: &mut Self::Floats) -> Result<()> {
        op.check(x.len(), moments.len())?;
        let end = op.offset + (op.vectors * op.len - 1) * op.stride + 1;
        let before = self.b.read_f64(&x.b, 0, end)?;
        self.a.normalize(op, &mut x.a, &mut moments.a)?;
        self.b.normalize(op, &mut x.b, &mut moments.b)?;
        let (of_x, of_moments) = op.tolerances(&before);
        self.compare("normalize", "moments", moments, 0..op.vectors * Normalize::MOMENTS, &of_moments)?;
        self.compare("normalize", "x", x, op.offset..end, &of_x)
    }

    fn explained_variance(
        &mut self,
        len: usize,
        values: &Self::Floats,
        returns: &Self::Floats,
        stats: &mut Self::Floats,
        stats_row: usize,
    ) -> Result<()> {
        let lens = [values, returns, &*stats].map(Length::len);
        let index = kernels::check_explained_variance(len, lens[0], lens[1], lens[2], stats_row)?;
        self.a.explained_variance(len, &values.a, &returns.a, &mut stats.a, stats_row)?;
        self.b.explained_variance(len, &values.b, &returns.b, &mut stats.b, stats_row)?;
        let both = [self.a.read_f64(&stats.a, index, 1)?, self.b.read_f64(&stats.b, index, 1)?];
        if both.iter().flatten().all(|value| value.is_nan()) {
            // Returns without variance: NaN is what the contract asks for, though a comparison must otherwise never pass a NaN.
            return Ok(());
        }
        let values = self.b.read_f64(&values.b, 0, len)?;
        let returns = self.b.read_f64(&returns.b, 0, len)?;
        let tolerance = kernels::explained_variance_tolerance(&values, &returns);
        self.compare("explained_variance", "stats", stats, index..index + 1, &tolerance)
    }
}
