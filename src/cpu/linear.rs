//! Linear layers: products of the `gemm` crate, with bias and activation while their rows are in the cache, on all threads where that pays.

use rayon::prelude::*;

use crate::elementary::{self, vectorised};
use crate::kernels::linear::{Activation, Linear};
use crate::real::Real;

/// Multiply-adds from which a second thread pays.
const PARALLEL_PRODUCT: usize = 1 << 21;
/// Rows of a block that one thread takes through a small layer: product, bias and activation while they are in its cache.
const BLOCK_ROWS: usize = 256;
/// Outputs of a block of its weights' gradient.
const BLOCK_OUTPUTS: usize = 32;
/// Elements from which elementwise loops run on all threads, in pieces of this size.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// act(x).
#[inline(always)]
pub fn activate(activation: Activation, x: f32) -> f32 {
    let (zero, one, half) = (0.0, 1.0, 0.5);
    match activation {
        Activation::Identity => x,
        Activation::Tanh => elementary::tanh(x),
        // Comparisons where max and min would drop a NaN; both sides are computed, so that no branch is left.
        Activation::Relu => {
            if x < zero {
                zero
            } else {
                x
            }
        }
        Activation::Elu => {
            let below = elementary::exp_m1(if x > zero { zero } else { x });
            if x > zero { x } else { below }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::GeluErf => x * normal_cdf(x),
        Activation::GeluTanh => half * x * (one + elementary::tanh(gelu_tanh_argument(x))),
    }
}

/// act′, from the output y for identity, tanh, relu and elu, from the pre-activation for the others.
#[inline(always)]
pub fn derivative(activation: Activation, saved: f32) -> f32 {
    let (zero, one, half) = (0.0, 1.0, 0.5);
    match activation {
        Activation::Identity => one,
        Activation::Tanh => one - saved * saved,
        Activation::Relu => {
            if saved > zero {
                one
            } else {
                zero
            }
        }
        Activation::Elu => {
            if saved > zero {
                one
            } else {
                saved + one
            }
        }
        Activation::Silu => {
            let g = sigmoid(saved);
            g * (one + saved * (one - g))
        }
        Activation::GeluErf => {
            let density = NORMAL_DENSITY_AT_0 * elementary::exp(-half * saved * saved);
            normal_cdf(saved) + saved * density
        }
        Activation::GeluTanh => {
            // Past ±20 the tanh is ±1 and the second term 0, whatever the cube overflows to.
            let near = saved.clamp(-20.0, 20.0);
            let t = elementary::tanh(gelu_tanh_argument(near));
            let slope = GELU_SCALE * (one + 3.0 * GELU_CUBIC * near * near);
            half * (one + t) + half * near * (one - t * t) * slope
        }
    }
}

/// √(2/π).
const GELU_SCALE: f32 = 0.797_884_560_802_865_4_f64 as f32;
/// 1/√(2π).
const NORMAL_DENSITY_AT_0: f32 = 0.398_942_280_401_432_7_f64 as f32;
const GELU_CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu_tanh_argument(x: f32) -> f32 {
    GELU_SCALE * (x + GELU_CUBIC * x * x * x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + elementary::exp(-x))
}

/// Φ(x) = ½·erfc(−x/√2).
fn normal_cdf(x: f32) -> f32 {
    0.5 * libm::erfcf(-x * std::f32::consts::FRAC_1_SQRT_2)
}

/// How a matrix lies in a slice: distances between neighbours in a row and in a column.
#[derive(Clone, Copy)]
struct Layout {
    row_stride: usize,
    column_stride: usize,
}

impl Layout {
    fn row_major(columns: usize) -> Self {
        Self { row_stride: columns, column_stride: 1 }
    }

    fn transposed(columns: usize) -> Self {
        Self { row_stride: 1, column_stride: columns }
    }

    fn last_element(self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride
    }
}

/// What a product does with what was there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Overwrite,
    AddTo,
}

/// c (+)= a·b for a `[m, k]`, b `[k, n]`, c `[m, n]` row-major, all of them at least 1; on all threads where that pays.
fn matmul(shape: [usize; 3], a: (&[f32], Layout), b: (&[f32], Layout), c: &mut [f32], target: Target) {
    let pays = shape.iter().product::<usize>() >= PARALLEL_PRODUCT;
    matmul_on(if pays { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None }, shape, a, b, c, target);
}

#[allow(unsafe_code)]
fn matmul_on(
    parallelism: gemm::Parallelism,
    [m, k, n]: [usize; 3],
    a: (&[f32], Layout),
    b: (&[f32], Layout),
    c: &mut [f32],
    target: Target,
) {
    assert!(a.1.last_element(m, k) < a.0.len() && b.1.last_element(k, n) < b.0.len() && m * n <= c.len());
    // SAFETY: the last element that each matrix reaches lies inside its slice, as asserted above, and `c` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            target == Target::AddTo,
            a.0.as_ptr(),
            a.1.column_stride as isize,
            a.1.row_stride as isize,
            b.0.as_ptr(),
            b.1.column_stride as isize,
            b.1.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `body(first element, piece)` for pieces of `data` that are whole rows of `width`, on all threads where that pays.
fn by_rows(data: &mut [f32], width: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() < 2 * PARALLEL_ELEMENTS {
        return body(0, data);
    }
    let piece = PARALLEL_ELEMENTS.next_multiple_of(width);
    data.par_chunks_mut(piece).enumerate().for_each(|(i, chunk)| body(i * piece, chunk));
}

/// Whether all threads take blocks of a layer's product each, because the whole pays for threads and a block does not.
fn is_shared_by_blocks(layer: &Linear) -> bool {
    layer.batch * layer.weights() >= PARALLEL_PRODUCT && BLOCK_ROWS * layer.weights() < PARALLEL_PRODUCT
}

/// `body(first row, rows of data)` for `data [batch, width]`.
fn by_blocks(layer: &Linear, width: usize, data: &mut [f32], body: impl Fn(usize, &mut [f32]) + Sync) {
    if !is_shared_by_blocks(layer) {
        return body(0, data);
    }
    data.par_chunks_mut(BLOCK_ROWS * width).enumerate().for_each(|(i, rows)| body(i * BLOCK_ROWS, rows));
}

/// y = act(x·Wᵀ + b), and the pre-activation where asked for.
pub fn forward(layer: &Linear, activation: Activation, x: &[f32], params: &[f32], pre: Option<&mut [f32]>, y: &mut [f32]) {
    let weights = (&params[layer.weight_offset..], Layout::transposed(layer.in_features));
    forward_with(weights, layer, activation, x, params, pre, y);
}

/// The same from Wᵀ, which starts at `weight_offset` of `transposed`: so the product reads along rows, and needs no copy.
pub(super) fn forward_transposed(
    transposed: &[f32],
    layer: &Linear,
    activation: Activation,
    x: &[f32],
    params: &[f32],
    pre: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let weights = (&transposed[layer.weight_offset..], Layout::row_major(layer.out_features));
    forward_with(weights, layer, activation, x, params, pre, y);
}

/// Wᵀ `[in, out]`, from `weight_offset` of `transposed` on.
pub(super) fn transpose_weights(layer: &Linear, params: &[f32], transposed: &mut [f32]) {
    let weights = &params[layer.weight_offset..][..layer.weights()];
    let transposed = &mut transposed[layer.weight_offset..][..layer.weights()];
    // A block of rows at a time, so that what is written side by side comes from few lines of the cache.
    const ROWS: usize = 16;
    for (block, rows) in weights.chunks(ROWS * layer.in_features).enumerate() {
        for (i, column) in transposed.chunks_exact_mut(layer.out_features).enumerate() {
            let elements = rows.iter().skip(i).step_by(layer.in_features);
            column[block * ROWS..].iter_mut().zip(elements).for_each(|(target, &w)| *target = w);
        }
    }
}

fn forward_with(
    weights: (&[f32], Layout),
    layer: &Linear,
    activation: Activation,
    x: &[f32],
    params: &[f32],
    pre: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let Linear { batch, in_features, out_features, bias_offset, .. } = *layer;
    let y = &mut y[..batch * out_features];
    let bias = &params[bias_offset..bias_offset + out_features];
    let with_bias = |activation: Activation, y: &mut [f32]| {
        by_blocks(layer, out_features, y, |first, y| {
            let (rows, x) = (y.len() / out_features, (&x[first * in_features..], Layout::row_major(in_features)));
            matmul([rows, in_features, out_features], x, weights, y, Target::Overwrite);
            by_rows(y, out_features, |_, rows| add_bias_and_activate(activation, bias, rows));
        });
    };
    let Some(pre) = pre else { return with_bias(activation, y) };
    with_bias(Activation::Identity, y);
    pre[..y.len()].copy_from_slice(y);
    by_rows(y, 1, |_, piece| activate_all(activation, piece));
}

/// A loop for each activation, so that none of them chooses in its inside.
macro_rules! for_each_activation {
    ($activation:expr, $known:ident => $loop:expr) => {
        match $activation {
            Activation::Identity => for_each_activation!(@ $known = Identity, $loop),
            Activation::Tanh => for_each_activation!(@ $known = Tanh, $loop),
            Activation::Relu => for_each_activation!(@ $known = Relu, $loop),
            Activation::Elu => for_each_activation!(@ $known = Elu, $loop),
            Activation::Silu => for_each_activation!(@ $known = Silu, $loop),
            Activation::GeluErf => for_each_activation!(@ $known = GeluErf, $loop),
            Activation::GeluTanh => for_each_activation!(@ $known = GeluTanh, $loop),
        }
    };
    (@ $known:ident = $variant:ident, $loop:expr) => {
        vectorised!({
            const $known: Activation = Activation::$variant;
            $loop
        })
    };
}

fn add_bias_and_activate(activation: Activation, bias: &[f32], rows: &mut [f32]) {
    for_each_activation!(activation, KNOWN => {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (y, &b) in row.iter_mut().zip(bias) {
                *y = activate(KNOWN, *y + b);
            }
        }
    });
}

fn activate_all(activation: Activation, data: &mut [f32]) {
    for_each_activation!(activation, KNOWN => {
        for x in data.iter_mut() {
            *x = activate(KNOWN, *x);
        }
    });
}

/// data ⊙= act′(saved).
fn scale_by_derivative(activation: Activation, saved: &[f32], data: &mut [f32]) {
    for_each_activation!(activation, KNOWN => {
        for (d, &s) in data.iter_mut().zip(saved) {
            *d *= derivative(KNOWN, s);
        }
    });
}

/// d_pre = d_y ⊙ act′(saved).
pub fn activation_backward(activation: Activation, saved: &[f32], d_y: &[f32], d_pre: &mut [f32]) {
    by_rows(d_pre, 1, |first, piece| {
        piece.copy_from_slice(&d_y[first..first + piece.len()]);
        scale_by_derivative(activation, &saved[first..], piece);
    });
}

/// d_x = (d_pre·W) ⊙ act′(saved of the layer below).
pub fn backward_input(layer: &Linear, d_pre: &[f32], params: &[f32], through: Option<(Activation, &[f32])>, d_x: &mut [f32]) {
    let Linear { batch, in_features, out_features, weight_offset, .. } = *layer;
    let d_x = &mut d_x[..batch * in_features];
    let weights = (&params[weight_offset..], Layout::row_major(in_features));
    let through = through.filter(|(activation, _)| *activation != Activation::Identity);
    by_blocks(layer, in_features, d_x, |first, d_x| {
        let (rows, d_pre) = (d_x.len() / in_features, (&d_pre[first * out_features..], Layout::row_major(out_features)));
        matmul([rows, out_features, in_features], d_pre, weights, d_x, Target::Overwrite);
        let Some((activation, saved)) = through else { return };
        let saved = &saved[first * in_features..];
        by_rows(d_x, 1, |first, piece| scale_by_derivative(activation, &saved[first..], piece));
    });
}

/// dW = d_preᵀ·x and db = Σ d_pre.
pub fn backward_params(layer: &Linear, d_pre: &[f32], x: &[f32], grads: &mut [f32]) {
    backward_params_into(layer, d_pre, x, grads, Target::Overwrite);
}

pub(super) fn backward_params_into(layer: &Linear, d_pre: &[f32], x: &[f32], grads: &mut [f32], target: Target) {
    let Linear { batch, in_features, out_features, weight_offset, bias_offset } = *layer;
    let d_pre = &d_pre[..batch * out_features];
    let (d_weights, d_bias) = if weight_offset < bias_offset {
        let (before, d_bias) = grads.split_at_mut(bias_offset);
        (&mut before[weight_offset..], d_bias)
    } else {
        let (before, d_weights) = grads.split_at_mut(weight_offset);
        (d_weights, &mut before[bias_offset..])
    };
    let (d_weights, d_bias) = (&mut d_weights[..layer.weights()], &mut d_bias[..out_features]);
    let x = (x, Layout::row_major(in_features));
    let transposed = |first: usize| (&d_pre[first..], Layout::transposed(out_features));
    if is_shared_by_blocks(layer) {
        let blocks = d_weights.par_chunks_mut(BLOCK_OUTPUTS * in_features).zip(d_bias.par_chunks_mut(BLOCK_OUTPUTS));
        blocks.enumerate().for_each(|(i, (d_weights, d_bias))| {
            let shape = [d_bias.len(), batch, in_features];
            let first = i * BLOCK_OUTPUTS;
            matmul_on(gemm::Parallelism::None, shape, transposed(first), x, d_weights, target);
            sum_columns(d_pre, out_features, first, d_bias, target);
        });
    } else {
        matmul([out_features, batch, in_features], transposed(0), x, d_weights, target);
        sum_columns(d_pre, out_features, 0, d_bias, target);
    }
}

/// sums (+)= Σ of the columns of a row-major matrix from `first` on.
fn sum_columns(matrix: &[f32], width: usize, first: usize, sums: &mut [f32], target: Target) {
    let store = |d: &mut f32, sum: f64| *d = if target == Target::AddTo { *d + sum as f32 } else { sum as f32 };
    let (whole, rest) = sums.as_chunks_mut::<COLUMNS>();
    let rest_first = first + whole.len() * COLUMNS;
    for (i, results) in whole.iter_mut().enumerate() {
        let sums = vectorised!(column_sums::<COLUMNS>(matrix, width, first + i * COLUMNS));
        results.iter_mut().zip(sums).for_each(|(d, sum)| store(d, sum));
    }
    for (column, d) in rest.iter_mut().enumerate() {
        let [sum] = column_sums(matrix, width, rest_first + column);
        store(d, sum);
    }
}

/// Columns summed side by side.
const COLUMNS: usize = 16;

/// Sums of N columns of a row-major matrix.
#[inline(always)]
fn column_sums<const N: usize>(matrix: &[f32], width: usize, first: usize) -> [f64; N] {
    let mut sums = [0.0; N];
    for row in matrix.chunks_exact(width) {
        let row: &[f32] = &row[first..first + N];
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x.f64();
        }
    }
    sums
}
