//! PPO's arithmetic as WGSL kernels on any GPU through [wgpu], each checked against a CPU twin.
//!
//! - [`backend`]: a trait for each kernel, implemented by [`Gpu`](backend::Gpu),
//!   [`Cpu<f32>`](backend::Cpu), `Cpu<f64>` and [`CrossCheck`](backend::CrossCheck). Start here for
//!   your own trainer.
//! - [`ppo`]: a [`Learner`](ppo::Learner) makes whole PPO updates; [`Config`](ppo::Config) has a
//!   field for each difference between implementations.
//! - [`train`] and [`mod@env`]: training an agent in an environment.
//! - [`verify`] and [`cases`]: checks of an adapter's results.
//! - [`mod@bench`]: measurements of an adapter's speed.
//! - [`kernels`]: shapes, limits and tolerances of each operation. [`mod@reference`]: the twins.
//!   [`gpu`]: devices, buffers, recording.
//!
//! Matrices are row-major, weights `[out, in]`, rollouts time-major (row t·N + n), storage `f32`.
//! The features `cli` (the program) and `gpu` (wgpu) are optional; the CPU backends need neither.

pub mod backend;
pub mod bench;
pub mod cases;
mod cpu;
mod elementary;
pub mod env;
pub mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod kernels;
pub mod layout;
mod operands;
pub mod operations;
pub mod ppo;
pub mod real;
pub mod reference;
mod scratch;
mod shape;
pub mod tolerance;
pub mod train;
pub mod verify;

pub use error::{Error, Mismatch, Result};
#[cfg(feature = "gpu")]
pub use wgpu;

/// The integration tests' module, which finds adapters and counts tests without one.
#[cfg(all(test, feature = "gpu"))]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(all(test, feature = "gpu"))]
extern crate self as ppo_kernels;

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
