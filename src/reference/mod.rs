//! The kernels' CPU twins, generic over `f32` and `f64`. They read like the formulas, take slices that a contract has already
//! checked, and accumulate in `f64`.

#![allow(clippy::needless_range_loop)] // a formula has its indices

pub mod advantage;
pub mod gather;
pub mod linear;
pub mod nonfinite;
pub mod normalize;
pub mod optimizer;
pub mod policy;
pub mod random;
pub mod surrogate;
