//! Twin of `shaders/nonfinite.wgsl`.
