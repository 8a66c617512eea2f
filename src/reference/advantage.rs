//! Twin of `shaders/advantage.wgsl`.
