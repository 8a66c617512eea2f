// Activation functions and their derivatives, behind elementary.wgsl; errors as src/kernels/linear.rs derives them.

// 0 identity, 1 tanh, 2 relu, 3 elu, 4 silu, 5 gelu (erf), 6 gelu (tanh); the order of `Activation`.
override ACTIVATION: u32 = 0u;

// NaN stays NaN in all of them. Devices drop it in min, max and sign, and their compilers may take a comparison for one of these.

// From 9.02 on it is 1 to the last bit.
fn tanh_of(x: f32) -> f32 {
    let grown = expm1_of(2.0 * min(abs(x), 9.1));
    let magnitude = grown / (grown + 2.0);
    return select(select(magnitude, -magnitude, x < 0.0), x, is_nan(x));
}

fn expm1_negative(x: f32) -> f32 {
    return expm1_of(select(x, -87.0, x < -87.0));
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-max(x, -87.0)));
}

// Φ(x), the distribution function of the standard normal: Cephes' erff near zero, Numerical Recipes' erfc (relative error 1.2e-7) beyond.
fn normal_cdf(x: f32) -> f32 {
    let z = 0.70710678 * x;
    let s = z * z;
    let erf_near_zero = z * ((((((7.853861353153693e-5 * s - 8.010193625184903e-4) * s + 5.188327685732524e-3) * s - 2.685381193529856e-2) * s
        + 1.128358514861418e-1) * s - 3.761262582423300e-1) * s + 1.128379165726710);
    let magnitude = min(abs(z), 9.0);
    let t = 1.0 / (1.0 + 0.5 * magnitude);
    let exponent = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807
        + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    let erfc = t * exp(exponent - magnitude * magnitude);
    let beyond = select(0.5 * erfc, 1.0 - 0.5 * erfc, z > 0.0);
    return select(beyond, 0.5 + 0.5 * erf_near_zero, abs(z) < 1.0);
}

const GELU_SCALE: f32 = 0.7978845608;  // √(2/π)
const GELU_CUBIC: f32 = 0.044715;

fn gelu_tanh_argument(x: f32) -> f32 {
    let near = clamp(x, -20.0, 20.0);
    return GELU_SCALE * (near + GELU_CUBIC * near * near * near);
}

fn activate(x: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return tanh_of(x); }
        case 2u: { return select(max(x, 0.0), x, is_nan(x)); }
        case 3u: { return select(expm1_negative(min(x, 0.0)), x, x > 0.0 || is_nan(x)); }
        case 4u: { return x * sigmoid(x); }
        case 5u: { return x * normal_cdf(x); }
        case 6u: { return 0.5 * x * (1.0 + tanh_of(gelu_tanh_argument(x))); }
        default: { return x; }
    }
}

// From the output y for identity, tanh, relu and elu, from the pre-activation for the others.
fn derivative(s: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return 1.0 - s * s; }
        case 2u: { return select(0.0, 1.0, s > 0.0); }
        case 3u: { return select(s + 1.0, 1.0, s > 0.0); }
        case 4u: {
            let g = sigmoid(s);
            return g * (1.0 + s * (1.0 - g));
        }
        case 5u: {
            let near = clamp(s, -20.0, 20.0);
            return normal_cdf(s) + near * 0.3989422804 * exp(-0.5 * near * near);
        }
        case 6u: {
            let near = clamp(s, -20.0, 20.0);
            let t = tanh_of(gelu_tanh_argument(s));
            return 0.5 * (1.0 + t) + 0.5 * near * (1.0 - t * t) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * near * near);
        }
        default: { return 1.0; }
    }
}
