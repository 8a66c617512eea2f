//! Twins of the shaders in `shaders/policy/`.

pub mod categorical;
pub mod gaussian;
