enable f16;
enable wgpu_cooperative_matrix;

// Cooperative matrices of 16×16, as NVIDIA's adapters have them.
const SIZE: u32 = 16u;
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;
