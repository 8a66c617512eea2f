//! Elementary functions without branches or calls, so that the compiler vectorises loops over them.
//!
//! e^x = 2^k·e^r with k = round(x/ln 2), |r| ≤ ln 2/2, and e^r − 1 by its series. Without fused
//! multiply-add, the bits are equal on every CPU.

/// Computes an expression compiled for this machine's widest vectors. Its functions and closures
/// must be `#[inline(always)]`: code that is not inlined is compiled for the oldest machine
/// (`for_each` over zipped slices, for instance). A macro always inlines the expression.
macro_rules! vectorised {
    ($body:expr) => {{
        let once = $crate::elementary::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _ = { once };
                $body
            },
        )
    }};
}
pub(crate) use vectorised;

/// Makes a closure `FnOnce`, so that the compiler calls it directly and inlines it.
pub(crate) struct Once;

/// Adding this rounds a small number to an integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few bits, so that k·LN_2_HIGH is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// (k, e^r − 1) for x in [−104, 89]; NaN stays NaN.
#[inline(always)]
fn exponent_and_rest(x: f32) -> (i32, f32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    // The first omitted term is r⁷/40320 of the result, at most 1.5e-8.
    let series = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))));
    (shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32, r + r * r * series)
}

/// 2^k for k in −126..=127.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) << 23) as u32)
}

/// Clamps with comparisons that keep NaN.
#[inline(always)]
fn between(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// e^x with a relative error below 1.2e-7: subnormal or 0 below −87.3, infinite above 88.72.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (k, rest) = exponent_and_rest(between(x, -104.0, 89.0));
    // 2^k may overflow; 2^(k/2) does not.
    let half = k >> 1;
    let (first, second) = (power_of_two(half), power_of_two(k - half));
    (first + first * rest) * second
}

/// [`exp_m1`] for x in [−87.3, 88.3] or NaN.
#[inline(always)]
fn exp_m1_in_range(x: f32) -> f32 {
    let (k, rest) = exponent_and_rest(x);
    let power = power_of_two(k);
    (power - 1.0) + power * rest
}

/// e^x − 1 with a relative error below 1.8e-7 for x ≤ 88.3; constant beyond.
#[inline(always)]
pub(crate) fn exp_m1(x: f32) -> f32 {
    exp_m1_in_range(between(x, -87.3, 88.3))
}

/// tanh x with a relative error below 2.4e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // From 9.02 on, tanh is 1 to the last bit.
    let near = if x.abs() > 9.1 { 9.1 } else { x.abs() };
    let grown = exp_m1_in_range(2.0 * near);
    (grown / (grown + 2.0)).copysign(x)
}

/// ln(1 + x) for x in [0, 2⁶⁴] with a relative error below 1e-15; NaN stays NaN.
///
/// 1 + x = 2^k·(1 + f) with 1 + f in [√½, √2), and ln(1 + f) = 2·artanh(f/(2 + f)) by its series.
#[inline(always)]
pub(crate) fn ln_1p(x: f64) -> f64 {
    const SQRT_HALF_BITS: u64 = 0x3FE6_A09E_667F_3BCD;
    const ONE_BITS: u64 = 1023 << 52;
    /// Adds an integer below 2⁵² in its low bits.
    const INTEGERS: f64 = 4_503_599_627_370_496.0;
    /// ln 2 in two parts; the first has few bits.
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let sum = 1.0 + x;
    // The rounding error of the sum.
    let lost = if x < 1.0 { x - (sum - 1.0) } else { 1.0 - (sum - x) };
    let exponent = sum.to_bits().wrapping_sub(SQRT_HALF_BITS) >> 52;
    let k = f64::from_bits(exponent | INTEGERS.to_bits()) - INTEGERS;
    let mantissa = f64::from_bits(sum.to_bits().wrapping_sub(exponent << 52));
    let scale = f64::from_bits(ONE_BITS.wrapping_sub(exponent << 52));
    let f = (mantissa - 1.0) + lost * scale;
    let s = f / (2.0 + f);
    let s2 = s * s;
    // |s| < 0.1716: the first omitted term is s²⁰/21 of the result, below 3e-17.
    let mut series = 0.0;
    for n in (1..10).rev() {
        series = s2 * (1.0 / f64::from(2 * n + 1) + series);
    }
    k * LN_2_HIGH + (2.0 * s + (2.0 * s * series + k * LN_2_LOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst relative error over every 97th number in a range, both signs.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let magnitudes = (from.to_bits()..to.to_bits()).step_by(97).map(f32::from_bits);
        let error = |x: f32| {
            let exact = exact(f64::from(x));
            ((f64::from(f(x)) - exact) / exact).abs()
        };
        magnitudes.flat_map(|x| [error(x), error(-x)]).fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_as_stated() {
        for (name, worst, stated) in [
            ("exp", worst(exp, f64::exp, 1e-10, 87.3), 1.2e-7),
            ("exp_m1", worst(exp_m1, f64::exp_m1, 1e-10, 87.3), 1.8e-7),
            ("tanh", worst(tanh, f64::tanh, 1e-10, 20.0), 2.4e-7),
        ] {
            assert!(worst <= stated, "{name}: {worst}");
        }
    }

    #[test]
    fn ends_and_specials() {
        assert_eq!((exp(0.0), exp_m1(0.0), tanh(0.0)), (1.0, 0.0, 0.0));
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((tanh(-0.0).is_sign_negative(), exp_m1(-200.0)), (true, -1.0));
        assert_eq!(
            (exp(f32::NEG_INFINITY), exp(-1e30), exp(88.73), exp(f32::INFINITY)),
            (0.0, 0.0, f32::INFINITY, f32::INFINITY)
        );
        // The last before infinity, and one below the normal range.
        assert!(
            (f64::from(exp(88.722)) / f64::from(88.722_f32).exp() - 1.0).abs() < 1.2e-7
                && (1.1e-40..1.2e-40).contains(&exp(-92.0))
        );
        assert!([exp(f32::NAN), exp_m1(f32::NAN), tanh(f32::NAN)].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn the_logarithm_near_one_is_as_precise_as_the_standard_one() {
        let arguments = (-1000..=192).map(|i| 10_f64.powf(f64::from(i) / 10.0)).chain((0..10_000).map(|i| f64::from(i) / 3000.0));
        let error = |x: f64| if x == 0.0 { ln_1p(x) } else { (ln_1p(x) / x.ln_1p() - 1.0).abs() };
        let worst = arguments.map(error).fold(0.0, f64::max);
        assert!(worst <= 1e-15, "{worst}");
        assert!(ln_1p(0.0) == 0.0 && ln_1p(f64::NAN).is_nan());
    }
}
