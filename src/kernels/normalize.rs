//! Advantage normalisation and explained variance, with variances that survive means far larger than the spread.

use crate::error::{Error, Result};
use crate::layout::stat;
use crate::shape::{elements, require_finite, require_len, require_range, require_size};
use crate::tolerance::{F32_ROUNDOFF, Tolerance};

/// How the standard deviation is kept away from zero. Where the denominator is zero all the same (no spread and ε = 0), the result is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonMode {
    /// (x − μ) / (σ + ε): torch-style code.
    AddToStd,
    /// (x − μ) / √(σ² + ε²).
    AddToVariance,
    /// (x − μ) / max(σ, ε).
    Max,
}

impl EpsilonMode {
    /// What centred values are divided by.
    pub(crate) fn denominator(self, std: f64, epsilon: f64) -> f64 {
        match self {
            EpsilonMode::AddToStd => std + epsilon,
            EpsilonMode::AddToVariance => (std * std + epsilon * epsilon).sqrt(),
            EpsilonMode::Max => std.max(epsilon),
        }
    }
}

/// Normalisation of one column of a row-major matrix, in place: elements `offset + i·stride`, i < `len`. Or of several vectors that follow
/// one another, each by its own moments: the k-th from `offset + k·len·stride` on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// Values of a vector.
    pub len: usize,
    /// Number of vectors.
    pub vectors: usize,
    /// First value.
    pub offset: usize,
    /// Distance between values, at least 1.
    pub stride: usize,
    /// 1 divides by len − 1 (torch), 0 by len (numpy, JAX). With one value and ddof 1 the values stay as they are (SB3), std is 0.
    pub ddof: u32,
    /// ε ≥ 0.
    pub epsilon: f64,
    /// Where ε enters.
    pub epsilon_mode: EpsilonMode,
}

impl Normalize {
    /// Moments of a vector: mean and standard deviation.
    pub const MOMENTS: usize = 2;

    pub(crate) fn check(&self, x: usize, moments: usize) -> Result<()> {
        require_size("len", self.len)?;
        require_size("vectors", self.vectors)?;
        require_size("stride", self.stride)?;
        if self.ddof > 1 {
            return Err(Error::value("ddof", "0 or 1", self.ddof));
        }
        require_finite("epsilon", self.epsilon)?;
        require_range("epsilon", self.epsilon, 0.0, f64::INFINITY)?;
        let values = elements("x", self.len, self.vectors)?;
        let span = (values - 1).checked_mul(self.stride).and_then(|span| span.checked_add(self.offset));
        let last = span.filter(|&last| last < u32::MAX as usize).ok_or_else(|| {
            let actual = format!("{} + {} x {}", self.offset, values - 1, self.stride);
            Error::shape("x", "elements below 2^32", actual)
        })?;
        require_len("x", x, last + 1)?;
        require_len("moments", moments, elements("moments", self.vectors, Self::MOMENTS)?)
    }

    /// The k-th vector alone.
    pub(crate) fn vector(&self, k: usize) -> Self {
        Self { offset: self.offset + k * self.len * self.stride, vectors: 1, ..*self }
    }

    /// Whether there are too few values for a standard deviation.
    pub(crate) fn leaves_values(&self) -> bool {
        self.len <= self.ddof as usize
    }

    /// How far results may lie from the exact ones, given `x` before: of the elements from `offset` to the last value (those between the values have
    /// to stay as they are), and of the moments.
    pub fn tolerances(&self, x: &[f64]) -> (Tolerance, Tolerance) {
        let (mut of_x, mut of_moments) = (Vec::new(), Vec::new());
        for k in 0..self.vectors {
            let (values, moments) = self.vector(k).bounds(x);
            of_x.resize(k * self.len * self.stride, 0.0);
            of_x.extend(values);
            of_moments.extend(moments);
        }
        (Tolerance::PerElement(of_x), Tolerance::PerElement(of_moments))
    }

    /// Of a single vector.
    fn bounds(&self, x: &[f64]) -> (Vec<f64>, [f64; Self::MOMENTS]) {
        let value = |i: usize| x[self.offset + i * self.stride];
        let bounds = Bounds::of(self.len, value, largest(self.len, value), 0.0);
        let mean_bound = bounds.mean_error + 2.0 * F32_ROUNDOFF * bounds.mean.abs();
        let mut of_x = vec![0.0; (self.len - 1) * self.stride + 1];
        if self.leaves_values() {
            return (of_x, [mean_bound, 0.0]);
        }
        let (std, std_error) = bounds.std(self.len as f64 / (self.len - self.ddof as usize) as f64);
        let denominator = self.epsilon_mode.denominator(std, self.epsilon);
        let denominator_error = std_error + QUOTIENT * F32_ROUNDOFF * denominator;
        // What the denominator is at least. Where that is nothing, so is what can be said about a quotient by it.
        let least = (denominator - denominator_error).max(0.0);
        for i in 0..self.len {
            let (centred, from_pivot) = (value(i) - bounds.mean, value(i) - value(0));
            let centred_error = bounds.mean_error + F32_ROUNDOFF * (from_pivot.abs() + centred.abs());
            let result = if denominator > 0.0 { (centred / denominator).abs() } else { 0.0 };
            let error = (centred_error + result * denominator_error) / least;
            of_x[i * self.stride] = if error.is_nan() { 0.0 } else { error + QUOTIENT * F32_ROUNDOFF * result };
        }
        (of_x, [mean_bound, std_error])
    }
}

/// Roundings of a quotient (2.5 ULP are 5 in WGSL) or a square root (there the inverse of an inverse square root, of 2 ULP), generously.
const QUOTIENT: f64 = 12.0;

/// Checks the arguments of [`explained_variance`](crate::backend::NormalizeOps::explained_variance); returns where in `stats` it goes.
pub(crate) fn check_explained_variance(
    len: usize,
    values: usize,
    returns: usize,
    stats: usize,
    stats_row: usize,
) -> Result<usize> {
    require_size("len", len)?;
    require_len("values", values, len)?;
    require_len("returns", returns, len)?;
    let index = stats_row.checked_mul(stat::COLUMNS).and_then(|row| row.checked_add(stat::EXPLAINED_VARIANCE));
    let index = index
        .filter(|&index| index < u32::MAX as usize)
        .ok_or_else(|| Error::shape("stats_row", "a row that exists", stats_row))?;
    require_len("stats", stats, index + 1)?;
    Ok(index)
}

/// How far an explained variance may lie from the exact one.
pub fn explained_variance_tolerance(values: &[f64], returns: &[f64]) -> Tolerance {
    let len = returns.len();
    let residual = |i: usize| returns[i] - values[i];
    let root_mean_square = ((0..len).map(|i| residual(i).powi(2)).sum::<f64>() / len as f64).sqrt();
    // Residuals are rounded when they are made.
    let largest_return = largest(len, |i| returns[i]);
    let largest_operand = largest(len, |i| values[i]).max(largest_return);
    let of_residuals = Bounds::of(len, residual, largest_operand, F32_ROUNDOFF * root_mean_square);
    let of_returns = Bounds::of(len, |i| returns[i], largest_return, 0.0);
    let unexplained = of_residuals.variance / of_returns.variance;
    let least = (of_returns.variance - of_returns.variance_error).max(0.0);
    let abs = (of_residuals.variance_error + unexplained * of_returns.variance_error) / least
        + QUOTIENT * F32_ROUNDOFF * (1.0 + unexplained);
    Tolerance::PerElement(vec![abs])
}

/// The largest magnitude.
fn largest(len: usize, value: impl Fn(usize) -> f64) -> f64 {
    (0..len).map(|i| value(i).abs()).fold(0.0, f64::max)
}

/// Sums of centred squares lose nothing to a mean far from zero; this is what they lose to rounding.
struct Bounds {
    /// Mean.
    mean: f64,
    /// Population variance.
    variance: f64,
    /// |error| of the mean as the kernel holds it, relative to the first element.
    mean_error: f64,
    /// |error| of the population variance.
    variance_error: f64,
}

impl Bounds {
    /// Roundings of a value on its way into a sum over `len` elements: those a lane adds, the tree, the chunks a lane joins, their tree, and
    /// twelve for distances, squares, products with counts, quotients and the rounding of the counts themselves.
    fn roundings(len: usize) -> f64 {
        let chunks = Chunks::new(len);
        let (in_lane, in_join) = (chunks.chunk.div_ceil(WORKGROUP_SIZE), chunks.count.div_ceil(WORKGROUP_SIZE));
        (in_lane + 8 + in_join + 8 + 12) as f64
    }

    /// With k = roundings·u, x₀ the first element and Q the root mean square of x − x₀:
    /// - a chunk's centre misses the chunk's mean by at most e = k·Q + 2u·(|x₀| + Q) (its sum, then its own rounding);
    /// - means, relative to x₀, have an error of at most k·(Q + e);
    /// - sums of squares within chunks of 4k·(σ² + e²): of the squares about the centre, which are σ² + e², and of the correction, e²;
    /// - squares of the chunks' means about the mean, by Cauchy-Schwarz, of 2σ·2k(Q + e) + (2k(Q + e))².
    ///
    /// `perturbation` is the root mean square of what the values themselves may be off: it adds 2σ·p + p² to the variance, p to the mean. `largest` is the
    /// magnitude that decides the power of two by which values are scaled. What is then below 2⁻¹²⁶ may be flushed to zero, values and squares.
    fn of(len: usize, value: impl Fn(usize) -> f64, largest: f64, perturbation: f64) -> Self {
        let (smallest, unit) = (f64::from(f32::MIN_POSITIVE), largest.max(SMALLEST_SCALED));
        let perturbation = perturbation + smallest + smallest * unit;
        let (n, pivot, k) = (len as f64, value(0), Self::roundings(len) * F32_ROUNDOFF);
        let mean = pivot + (0..len).map(|i| value(i) - pivot).sum::<f64>() / n;
        let variance = (0..len).map(|i| (value(i) - mean).powi(2)).sum::<f64>() / n;
        let std = variance.sqrt();
        let from_pivot = (variance + (mean - pivot).powi(2)).sqrt();
        let centre_error = k * from_pivot + 2.0 * F32_ROUNDOFF * (pivot.abs() + from_pivot);
        let mean_error = k * (from_pivot + centre_error);
        let within = 4.0 * k * (variance + centre_error.powi(2));
        let between = 4.0 * std * mean_error + 4.0 * mean_error.powi(2);
        let inherited = 2.0 * std * perturbation + perturbation.powi(2);
        let variance_error = within + between + inherited + 2.0 * smallest * unit * unit;
        Self { mean, variance, mean_error: mean_error + perturbation, variance_error }
    }

    /// The standard deviation with the variance times `correction`, and its error: |√(V + Δ) − √V| ≤ min(Δ/√V, √Δ), and the root's own.
    fn std(&self, correction: f64) -> (f64, f64) {
        let std = (self.variance * correction).sqrt();
        let error = self.variance_error * correction;
        (std, (error / std).min(error.sqrt()) + QUOTIENT * F32_ROUNDOFF * std)
    }
}

/// What is below 2⁻¹⁰⁰ is scaled no further.
const SMALLEST_SCALED: f64 = 1.0 / (1u128 << 100) as f64;

/// As in the shader.
const WORKGROUP_SIZE: usize = 256;

/// How a vector is cut into chunks, one a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunks {
    /// Elements of a chunk; the last may have fewer.
    chunk: usize,
    count: usize,
}

impl Chunks {
    /// Sixteen elements a lane repay the barriers of a tree.
    const LEAST: usize = 16 * WORKGROUP_SIZE;
    /// Every workgroup of the second dispatch reads all partial results: two a lane.
    const MOST: usize = 2 * WORKGROUP_SIZE;

    fn new(len: usize) -> Self {
        let chunk = len.div_ceil(Self::MOST).next_multiple_of(WORKGROUP_SIZE).max(Self::LEAST);
        Self { chunk, count: len.div_ceil(chunk) }
    }
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{Chunks, EpsilonMode, Normalize, check_explained_variance};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;
    use crate::shape::elements;

    pub(crate) const SHADER: Shader =
        Shader { name: "normalize", source: include_str!("../../shaders/normalize.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(NormalizeParams::NAME, size_of::<NormalizeParams>(), NormalizeParams::FIELDS)],
        entries: &[
            ("normalize_whole", &[ADD_TO_STD, ADD_TO_VARIANCE, MAX]),
            ("normalize_chunks", &[&[]]),
            ("normalize_apply", &[ADD_TO_STD, ADD_TO_VARIANCE, MAX]),
            ("explain_whole", &[&[]]),
            ("explain_chunks", &[&[]]),
            ("explain", &[&[]]),
        ],
    }];

    type Constants = &'static [(&'static str, f64)];
    const ADD_TO_STD: Constants = &[("EPSILON_MODE", 0.0)];
    const ADD_TO_VARIANCE: Constants = &[("EPSILON_MODE", 1.0)];
    const MAX: Constants = &[("EPSILON_MODE", 2.0)];

    /// The longest vector that one workgroup does alone. Twice what a workgroup of two dispatches does: about what those cost more.
    const LONGEST_WHOLE: usize = 2 * Chunks::LEAST;

    shader_params! {
        struct NormalizeParams {
            len: u32,
            vectors: u32,
            offset: u32,
            stride: u32,
            ddof: u32,
            epsilon: f32,
            chunk: u32,
            chunks: u32,
            stats_index: u32,
            nan_bits: u32,
        }
    }

    fn params(len: usize, chunks: Chunks) -> NormalizeParams {
        NormalizeParams {
            len: len as u32,
            vectors: 1,
            chunk: chunks.chunk as u32,
            chunks: chunks.count as u32,
            nan_bits: f32::NAN.to_bits(),
            ..bytemuck::Zeroable::zeroed()
        }
    }

    /// Moments and exponents of every chunk of a vector, and its pivot: four numbers each.
    fn partials(context: &mut Context, chunks: Chunks, vectors: usize) -> Result<Buffer<f32>> {
        context.scratch("normalize", 4 * elements("partials", 2 * chunks.count + 1, vectors)?)
    }

    /// With `whole`, vectors of up to [`LONGEST_WHOLE`] elements take one dispatch.
    pub(crate) fn record_normalize(
        context: &mut Context,
        whole: bool,
        op: &Normalize,
        x: &Buffer<f32>,
        moments: &Buffer<f32>,
    ) -> Result<()> {
        op.check(x.len(), moments.len())?;
        let mode = match op.epsilon_mode {
            EpsilonMode::AddToStd => ADD_TO_STD,
            EpsilonMode::AddToVariance => ADD_TO_VARIANCE,
            EpsilonMode::Max => MAX,
        };
        let chunks = Chunks::new(op.len);
        let params = NormalizeParams {
            vectors: op.vectors as u32,
            offset: op.offset as u32,
            stride: op.stride as u32,
            ddof: op.ddof,
            epsilon: op.epsilon as f32,
            ..params(op.len, chunks)
        };
        if whole && op.len <= LONGEST_WHOLE {
            let buffers = [bind("x", x), bind("moments", moments)];
            let params = NormalizeParams { chunks: 1, ..params };
            return context.dispatch(SHADER, "normalize_whole", mode, &params, &buffers, Grid::Linear(op.vectors));
        }
        let partials = partials(context, chunks, op.vectors)?;
        let grid = Grid::Linear(elements("workgroups", chunks.count, op.vectors)?);
        context.dispatch(SHADER, "normalize_chunks", &[], &params, &[bind("x", x), bind("partials", &partials)], grid)?;
        let buffers = [bind("x", x), bind("moments", moments), bind("partials", &partials)];
        context.dispatch(SHADER, "normalize_apply", mode, &params, &buffers, grid)
    }

    /// As [`record_normalize`].
    pub(crate) fn record_explained_variance(
        context: &mut Context,
        whole: bool,
        len: usize,
        values: &Buffer<f32>,
        returns: &Buffer<f32>,
        stats: &Buffer<f32>,
        stats_row: usize,
    ) -> Result<()> {
        let stats_index = check_explained_variance(len, values.len(), returns.len(), stats.len(), stats_row)?;
        let chunks = Chunks::new(len);
        let params = NormalizeParams { stats_index: stats_index as u32, ..params(len, chunks) };
        let (values, returns) = (bind("values", values), bind("returns", returns));
        if whole && len <= LONGEST_WHOLE {
            let buffers = [values, returns, bind("stats", stats)];
            return context.dispatch(SHADER, "explain_whole", &[], &params, &buffers, Grid::Linear(1));
        }
        let partials = partials(context, chunks, 1)?;
        let buffers = [values, returns, bind("partials", &partials)];
        context.dispatch(SHADER, "explain_chunks", &[], &params, &buffers, Grid::Linear(chunks.count))?;
        context.dispatch(SHADER, "explain", &[], &params, &[bind("partials", &partials), bind("stats", stats)], Grid::Linear(1))
    }
}
