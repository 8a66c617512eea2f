//! Counter-based random numbers (Philox4x32-10, Salmon et al. 2011) and random permutations, the same on every backend.
//!
//! Nothing is stored: an element's value is a function of (seed, stream, index), so any part of a stream can be made again.

/// A stretch of a random stream, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomStream {
    /// Number of values.
    pub len: usize,
    /// Key.
    pub seed: u64,
    /// Which of the 2⁶⁴ independent streams of that key.
    pub stream: u64,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
