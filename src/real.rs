//! Number types of CPU backends: `f32` (the GPU's storage) or `f64` (the oracle).

use crate::elementary;

/// `f32` or `f64`, with functions that [`num_traits::Float`] lacks.
pub trait Real:
    num_traits::Float + bytemuck::Pod + std::fmt::Debug + Default + Send + Sync + std::iter::Sum + std::ops::AddAssign + 'static
{
    /// Name in reports.
    const NAME: &'static str;
    /// Unit roundoff, 2⁻²⁴ or 2⁻⁵³.
    const UNIT_ROUNDOFF: f64;
    /// Rounds to this type.
    fn of(x: f64) -> Self;
    /// Widens without loss.
    fn f64(self) -> f64;
    /// The complementary error function, 2/√π ∫ₓ^∞ e^(−t²) dt.
    fn erfc(self) -> Self;
    /// e^x for vectorised loops; for `f32` a polynomial with a relative error below 1.2e-7.
    fn exp_in_loops(self) -> Self;
    /// e^x − 1 for vectorised loops, below 1.8e-7.
    fn exp_m1_in_loops(self) -> Self;
    /// tanh x for vectorised loops, below 2.4e-7.
    fn tanh_in_loops(self) -> Self;
}

impl Real for f32 {
    const NAME: &'static str = "f32";
    const UNIT_ROUNDOFF: f64 = 5.960_464_477_539_063e-8;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn erfc(self) -> Self {
        libm::erfcf(self)
    }
    #[inline(always)]
    fn exp_in_loops(self) -> Self {
        elementary::exp(self)
    }
    #[inline(always)]
    fn exp_m1_in_loops(self) -> Self {
        elementary::exp_m1(self)
    }
    #[inline(always)]
    fn tanh_in_loops(self) -> Self {
        elementary::tanh(self)
    }
}

impl Real for f64 {
    const NAME: &'static str = "f64";
    const UNIT_ROUNDOFF: f64 = 1.110_223_024_625_156_5e-16;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    fn erfc(self) -> Self {
        libm::erfc(self)
    }
    #[inline(always)]
    fn exp_in_loops(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn exp_m1_in_loops(self) -> Self {
        self.exp_m1()
    }
    #[inline(always)]
    fn tanh_in_loops(self) -> Self {
        self.tanh()
    }
}
