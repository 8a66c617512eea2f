//! Action distributions: categorical, Gaussian, tanh-squashed Gaussian.

mod agreement;
#[path = "../common/mod.rs"]
mod common;
mod inputs;
