//! Moments: several sums side by side in a chunk, chunks on all threads, added in order.

use rayon::prelude::*;

use crate::kernels::normalize::Normalize;
use crate::real::Real;
use crate::scratch::in_parts;

/// Elements that are summed in one go; more are cut into such chunks, whose sums are added in order, whichever thread made them.
const CHUNK: usize = 1 << 14;
/// Independent sums in a chunk, so that additions need not wait for each other.
const LANES: usize = 8;

/// x = (x − μ) / denominator; moments = [μ, σ] of what was there; vector by vector.
pub fn normalize(op: &Normalize, x: &mut [f32], moments: &mut [f32]) {
    for (k, moments) in moments.chunks_mut(Normalize::MOMENTS).take(op.vectors).enumerate() {
        normalize_vector(&op.vector(k), x, moments);
    }
}

fn normalize_vector(op: &Normalize, x: &mut [f32], moments: &mut [f32]) {
    let Moments { mean, squares } = moments_of(op.len, |i| x[op.offset + i * op.stride].f64());
    let std = if op.leaves_values() { 0.0 } else { (squares / (op.len - op.ddof as usize) as f64).sqrt() };
    (moments[0], moments[1]) = (f32::of(mean), f32::of(std));
    if op.leaves_values() {
        return;
    }
    let denominator = op.epsilon_mode.denominator(std, op.epsilon);
    let normalized = |x: f32| if denominator == 0.0 { 0.0 } else { f32::of((x.f64() - mean) / denominator) };
    let rows = &mut x[op.offset..];
    if op.len <= CHUNK {
        rows.iter_mut().step_by(op.stride).take(op.len).for_each(|x| *x = normalized(*x));
    } else {
        let rows = rows.par_chunks_mut(op.stride).take(op.len).with_min_len(CHUNK);
        rows.for_each(|row| row[0] = normalized(row[0]));
    }
}

/// 1 − Var(returns − values) / Var(returns), population variances; NaN where the returns have no variance.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> f32 {
    let residuals = moments_of(returns.len(), |i| returns[i].f64() - values[i].f64());
    let of_returns = moments_of(returns.len(), |i| returns[i].f64());
    if of_returns.squares > 0.0 { f32::of(1.0 - residuals.squares / of_returns.squares) } else { f32::NAN }
}

struct Moments {
    mean: f64,
    /// Sum of squares about the mean.
    squares: f64,
}

/// Two passes, both about a shift: the first element (so that constants give exactly 0), then the mean, corrected for its rounding.
fn moments_of(len: usize, value: impl Fn(usize) -> f64 + Sync) -> Moments {
    let n = len as f64;
    let pivot = value(0);
    let [sum] = sums(len, |i| [value(i) - pivot]);
    let mean = pivot + sum / n;
    let [sum, squares] = sums(len, |i| {
        let distance = value(i) - mean;
        [distance, distance * distance]
    });
    let squares = squares - sum * sum / n;
    // Below 0 by rounding alone. A NaN stays.
    Moments { mean, squares: if squares < 0.0 { 0.0 } else { squares } }
}

/// Σ term(i) over i < `len`, in an order that depends on nothing but `len`.
fn sums<const N: usize>(len: usize, term: impl Fn(usize) -> [f64; N] + Sync) -> [f64; N]
where
    [f64; N]: bytemuck::Pod,
{
    let of_chunk = |chunk: usize| {
        let end = len.min((chunk + 1) * CHUNK);
        let mut lanes = [[0.0; N]; LANES];
        let mut start = chunk * CHUNK;
        while start + LANES <= end {
            for (lane, sums) in lanes.iter_mut().enumerate() {
                add(sums, term(start + lane));
            }
            start += LANES;
        }
        (start..end).for_each(|i| add(&mut lanes[0], term(i)));
        total(&lanes)
    };
    match len.div_ceil(CHUNK) {
        1 => of_chunk(0),
        chunks => in_parts(chunks, of_chunk, total),
    }
}

fn add<const N: usize>(sums: &mut [f64; N], terms: [f64; N]) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

fn total<const N: usize>(parts: &[[f64; N]]) -> [f64; N] {
    parts.iter().fold([0.0; N], |mut sums, &part| {
        add(&mut sums, part);
        sums
    })
}
