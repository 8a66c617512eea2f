//! Twin of `shaders/random.wgsl`.
