//! Twin of `shaders/linear/`.

use crate::kernels::linear::{Activation, Linear};
use crate::real::Real;

/// act(x).
pub fn activate<T: Real>(activation: Activation, x: T) -> T {
    let (zero, one, half) = (T::zero(), T::one(), T::of(0.5));
    match activation {
        Activation::Identity => x,
        Activation::Tanh => x.tanh(),
        // A NaN stays one.
        Activation::Relu if x < zero => zero,
        Activation::Relu => x,
        Activation::Elu if x > zero => x,
        Activation::Elu => x.exp_m1(),
        Activation::Silu => x * sigmoid(x),
        Activation::GeluErf => x * normal_cdf(x),
        Activation::GeluTanh => half * x * (one + gelu_tanh_argument(x).tanh()),
    }
}

/// act′, from the output y for identity, tanh, relu and elu, from the pre-activation for the others.
pub fn derivative<T: Real>(activation: Activation, saved: T) -> T {
    let (zero, one, half) = (T::zero(), T::one(), T::of(0.5));
    match activation {
        Activation::Identity => one,
        Activation::Tanh => one - saved * saved,
        Activation::Relu if saved > zero => one,
        Activation::Relu => zero,
        Activation::Elu if saved > zero => one,
        Activation::Elu => saved + one,
        Activation::Silu => sigmoid(saved) * (one + saved * (one - sigmoid(saved))),
        Activation::GeluErf => {
            // Φ(x) + x·φ(x).
            let density = T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
            normal_cdf(saved) + saved * density * (-half * saved * saved).exp()
        }
        Activation::GeluTanh => {
            // Past ±20 the tanh is ±1 and its slope 0, whatever the cube overflows to.
            let x = saved.clamp(T::of(-20.0), T::of(20.0));
            let t = gelu_tanh_argument(x).tanh();
            let slope = T::of(GELU_SCALE) * (one + T::of(3.0 * GELU_CUBIC) * x * x);
            half * (one + t) + half * x * (one - t * t) * slope
        }
    }
}

/// √(2/π).
const GELU_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const GELU_CUBIC: f64 = 0.044_715;

fn gelu_tanh_argument<T: Real>(x: T) -> T {
    T::of(GELU_SCALE) * (x + T::of(GELU_CUBIC) * x * x * x)
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// Φ(x) = ½·erfc(−x/√2).
fn normal_cdf<T: Real>(x: T) -> T {
    T::of(0.5) * (-x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erfc()
}

/// y = act(x·Wᵀ + b), and the pre-activation where asked for; x `[batch, in]`, W `[out, in]`, y `[batch, out]`.
pub fn forward<T: Real>(layer: &Linear, activation: Activation, x: &[T], params: &[T], pre: Option<&mut [T]>, y: &mut [T]) {
    let Linear { batch, in_features, out_features, weight_offset, bias_offset } = *layer;
    let y = &mut y[..batch * out_features];
    let transposed = Matrix { data: &params[weight_offset..], strides: [1, in_features] };
    product([batch, in_features, out_features], Matrix { data: x, strides: [in_features, 1] }, transposed, y);
    for row in y.chunks_exact_mut(out_features) {
        row.iter_mut().zip(&params[bias_offset..]).for_each(|(y, &b)| *y += b);
    }
    if let Some(pre) = pre {
        pre[..y.len()].copy_from_slice(y);
    }
    y.iter_mut().for_each(|y| *y = activate(activation, *y));
}

/// d_pre = d_y ⊙ act′(saved).
pub fn activation_backward<T: Real>(activation: Activation, saved: &[T], d_y: &[T], d_pre: &mut [T]) {
    for ((d_pre, &d_y), &saved) in d_pre.iter_mut().zip(d_y).zip(saved) {
        *d_pre = d_y * derivative(activation, saved);
    }
}

/// d_x = (d_pre·W) ⊙ act′(saved of the layer below).
pub fn backward_input<T: Real>(layer: &Linear, d_pre: &[T], params: &[T], through: Option<(Activation, &[T])>, d_x: &mut [T]) {
    let Linear { batch, in_features, out_features, weight_offset, .. } = *layer;
    let d_x = &mut d_x[..batch * in_features];
    let weights = Matrix { data: &params[weight_offset..], strides: [in_features, 1] };
    product([batch, out_features, in_features], Matrix { data: d_pre, strides: [out_features, 1] }, weights, d_x);
    if let Some((activation, saved)) = through {
        d_x.iter_mut().zip(saved).for_each(|(d_x, &saved)| *d_x = *d_x * derivative(activation, saved));
    }
}

/// dW = d_preᵀ·x and db = Σ_batch d_pre.
pub fn backward_params<T: Real>(layer: &Linear, d_pre: &[T], x: &[T], grads: &mut [T]) {
    let Linear { batch, in_features, out_features, weight_offset, bias_offset } = *layer;
    let transposed = Matrix { data: d_pre, strides: [1, out_features] };
    let d_weights = &mut grads[weight_offset..][..layer.weights()];
    product([out_features, batch, in_features], transposed, Matrix { data: x, strides: [in_features, 1] }, d_weights);
    for (out, d_bias) in grads[bias_offset..][..out_features].iter_mut().enumerate() {
        *d_bias = T::of((0..batch).map(|row| d_pre[row * out_features + out].f64()).sum());
    }
}

/// A matrix in a slice, with the distances between neighbours in a column and in a row.
struct Matrix<'a, T> {
    data: &'a [T],
    strides: [usize; 2],
}

/// c = a·b for a `[m, k]`, b `[k, n]`, c `[m, n]` row-major, all of them at least 1.
#[allow(unsafe_code)]
fn product<T: Real>([m, k, n]: [usize; 3], a: Matrix<'_, T>, b: Matrix<'_, T>, c: &mut [T]) {
    let last =
        |matrix: &Matrix<'_, T>, rows: usize, columns: usize| (rows - 1) * matrix.strides[0] + (columns - 1) * matrix.strides[1];
    assert!(last(&a, m, k) < a.data.len() && last(&b, k, n) < b.data.len() && m * n <= c.len());
    let [a_strides, b_strides] = [&a, &b].map(|matrix| matrix.strides.map(|stride| stride as isize));
    let (zero, one) = (T::zero(), T::one());
    // SAFETY: the last element that each matrix reaches lies inside its slice, as asserted above, and `c` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.data.as_ptr(),
            a_strides[1],
            a_strides[0],
            b.data.as_ptr(),
            b_strides[1],
            b_strides[0],
            zero,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
