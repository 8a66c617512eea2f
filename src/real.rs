//! Number types of CPU backends: `f32` (the GPU's storage) or `f64` (the oracle).

/// `f32` or `f64`, with functions that [`num_traits::Float`] lacks.
pub trait Real:
    num_traits::Float + bytemuck::Pod + std::fmt::Debug + Default + Send + Sync + std::iter::Sum + std::ops::AddAssign + 'static
{
    /// Name in reports.
    const NAME: &'static str;
    /// Rounds to this type.
    fn of(x: f64) -> Self;
    /// Widens without loss.
    fn f64(self) -> f64;
    /// The complementary error function, 2/√π ∫ₓ^∞ e^(−t²) dt.
    fn erfc(self) -> Self;
}

impl Real for f32 {
    const NAME: &'static str = "f32";
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
}

impl Real for f64 {
    const NAME: &'static str = "f64";
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
}
