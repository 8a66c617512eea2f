enable f16;
enable wgpu_cooperative_matrix;

// Cooperative matrices of 8×8, as Apple's adapters and new versions of llvmpipe have them.
const SIZE: u32 = 8u;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
