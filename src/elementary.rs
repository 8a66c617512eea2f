//! Elementary functions of `f32` without branches or calls, so that the compiler vectorises loops over them.
//!
//! e^x = 2^k·e^r with k = round(x/ln 2), |r| ≤ ln 2/2, and e^r − 1 by its series. No fused multiply-add: the same bits on every CPU.

/// Computes an expression, compiled for the widest vectors that this machine has. Functions and closures that it calls have to be
/// `#[inline(always)]` to profit: what is not inlined, as `for_each` over several zipped slices is not, is compiled for the oldest machine. A macro,
/// so that the expression itself always is.
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

/// A closure that takes this along can be called but once, and so is called as it is, not through a function of the compiler's own, which would not
/// be inlined.
pub(crate) struct Once;

/// Adding this rounds a small number to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2, of which the first part is exact in few bits, so that k·LN_2_HIGH is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// (2^k, e^r − 1) for x in [−87.3, 88.3]; NaN stays NaN.
#[inline(always)]
fn power_and_rest(x: f32) -> (f32, f32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    // The first term left out is r⁷/40320 of the result, at most 1.5e-8.
    let series = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))));
    (power, r + r * r * series)
}

/// A comparison that keeps NaN, unlike `f32::clamp`'s order of operands after `min` and `max`.
#[inline(always)]
fn between(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// e^x with a relative error below 1.2e-7; below −87.3 as at −87.3, above 88.3 as at 88.3.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (power, rest) = power_and_rest(between(x, -87.3, 88.3));
    power + power * rest
}

/// As [`exp_m1`], for x in [−87.3, 88.3] or NaN.
#[inline(always)]
fn exp_m1_in_range(x: f32) -> f32 {
    let (power, rest) = power_and_rest(x);
    (power - 1.0) + power * rest
}

/// e^x − 1 with a relative error below 1.8e-7, for x ≤ 88.3 (beyond, as there).
#[inline(always)]
pub(crate) fn exp_m1(x: f32) -> f32 {
    exp_m1_in_range(between(x, -87.3, 88.3))
}

/// tanh x with a relative error below 2.4e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // From 9.02 on it is 1 to the last bit.
    let near = if x.abs() > 9.1 { 9.1 } else { x.abs() };
    let grown = exp_m1_in_range(2.0 * near);
    (grown / (grown + 2.0)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst relative error over every 97th number between two, both signs.
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
        assert!(exp(-1e30) < 2e-38 && exp(1e30).is_finite());
        assert!([exp(f32::NAN), exp_m1(f32::NAN), tanh(f32::NAN)].iter().all(|x| x.is_nan()));
    }
}
