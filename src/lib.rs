//! PPO's arithmetic on any GPU: WGSL compute kernels through [wgpu], each with a CPU twin that it is checked against.
//!
//! - [`backend`]: one trait a kernel, and [`Gpu`](backend::Gpu), [`Cpu<f32>`](backend::Cpu), `Cpu<f64>` and
//!   [`CrossCheck`](backend::CrossCheck), which implement all of them. Start here to use kernels in a trainer of your own.
//! - [`ppo`]: a [`Learner`](ppo::Learner) that makes whole PPO updates of them, with every choice in which implementations differ as a
//!   field of its [`Config`](ppo::Config).
//! - [`train`] and [`mod@env`]: an agent in an environment, from scratch.
//! - [`verify`] and [`cases`]: whether an adapter computes what it should.
//! - [`mod@bench`]: how fast an adapter computes it.
//! - [`kernels`]: shapes, limits and tolerances of each operation. [`mod@reference`]: the twins. [`gpu`]: devices, buffers, recording.
//!
//! Matrices are row-major; weights are `[out, in]`; rollouts are time-major, row t·N + n. Storage is `f32`. The crate builds without the
//! features `cli` (the program) and `gpu` (wgpu); the CPU backends then remain.

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

/// Unit tests that need an adapter find it, and are counted where there is none, as the others are.
#[cfg(all(test, feature = "gpu"))]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(all(test, feature = "gpu"))]
extern crate self as ppo_kernels;

/// The README's example has to compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
