//! Twin of `shaders/normalize.wgsl`.
