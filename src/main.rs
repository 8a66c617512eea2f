//! The `ppo-kernels` program; see [`ppo_kernels`].
fn main() {}
