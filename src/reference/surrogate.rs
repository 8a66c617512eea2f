//! Twin of `shaders/surrogate.wgsl`.
