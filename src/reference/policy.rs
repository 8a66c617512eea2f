//! Twin of `shaders/policy.wgsl`.
