//! Finding NaN and infinities without a read-back.

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
