//! PPO's arithmetic on any GPU.

pub mod backend;
pub mod cases;
pub mod env;
pub mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod kernels;
pub mod ppo;
pub mod real;
pub mod reference;
mod shape;
pub mod tolerance;
pub mod train;
pub mod verify;

pub use error::{Error, Mismatch, Result};
#[cfg(feature = "gpu")]
pub use wgpu;
