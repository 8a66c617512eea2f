//! Twin of `shaders/linear.wgsl`.
