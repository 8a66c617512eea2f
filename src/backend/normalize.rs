//! The operations of [`kernels::normalize`](crate::kernels::normalize) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::normalize::Normalize;

/// Moments of long vectors.
pub trait NormalizeOps: Memory {
    /// Normalises in place and writes `[mean, std]` of what was there to `moments`.
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
