//! Twin of `shaders/optimizer.wgsl`.
