//! Products on tensor cores: operands rounded to f16, sums in f32. How far off they may be, and the binding to wgpu.

use super::{Linear, STEEPEST, gamma};
use crate::tolerance::Tolerance;

/// What matrix products are computed in. Parameters, activations and gradients are stored in f32 either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 throughout
    #[default]
    F32,
    /// Operands of large matrix products rounded to f16, sums in f32, where the adapter has tensor cores; less exact and faster
    F16TensorCore,
}

/// Unit roundoff of f16, 2⁻¹¹.
const F16_ROUNDOFF: f64 = 1.0 / 2048.0;
/// Half the distance between numbers of f16 below 2⁻¹⁴: 2⁻²⁵.
const F16_SUBNORMAL: f64 = 1.0 / 33_554_432.0;

/// The power of two, not below the batch, by which gradients of pre-activations are multiplied on their way into f16.
pub fn gradient_scale(batch: usize) -> f64 {
    batch.next_power_of_two() as f64
}

/// The largest magnitudes that rounding to f16 may make of operands: |a|(1 + 2⁻¹¹) + 2⁻²⁵ of those multiplied by `scale` before.
pub fn rounded_magnitudes(magnitudes: &[f64], scale: f64) -> Vec<f64> {
    magnitudes.iter().map(|a| a * (1.0 + F16_ROUNDOFF) + F16_SUBNORMAL / scale).collect()
}

/// The bound in f32 and what tensor cores add to it, through the steepest slope of an activation.
///
/// Let â and b̂ be the rounded operands, `magnitudes` = Σ|a||b| and `rounded` = the same of [`rounded_magnitudes`]. Then |â − a| and |b̂ − b| are what the
/// latter adds to |a| and |b|, and Σ|âb̂ − ab| ≤ `rounded` − `magnitudes`. Products of halves are exact in f32; their sum of `terms` is off by γ of
/// `rounded`, twice as large as in f32 because adapters may truncate where they should round.
pub fn tensor_core_tolerance(in_f32: Tolerance, terms: usize, magnitudes: &[f64], rounded: &[f64]) -> Tolerance {
    let added = |(i, (magnitude, rounded)): (usize, (&f64, &f64))| {
        in_f32.allowed(i, 0.0) + STEEPEST * (rounded - magnitude + 2.0 * gamma(terms) * rounded)
    };
    Tolerance::PerElement(magnitudes.iter().zip(rounded).enumerate().map(added).collect())
}

impl Linear {
    /// Whether its products are large enough for tensor cores: no dimension below that of their matrices.
    pub fn suits_tensor_cores(&self) -> bool {
        self.batch.min(self.in_features).min(self.out_features) >= 16
    }
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::super::binding::{ACTIVATIONS, LinearParams, Operation};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, CooperativeMatrix, Grid, Indices, Shader, ShaderParams};
    use crate::kernels::{Constants, ShaderInfo};

    macro_rules! shader {
        ($name:literal) => {
            Shader {
                name: $name,
                source: concat!(
                    include_str!(concat!("../../../shaders/", $name, ".wgsl")),
                    include_str!("../../../shaders/elementary.wgsl"),
                    include_str!("../../../shaders/linear/activation.wgsl"),
                    include_str!("../../../shaders/linear/edges.wgsl"),
                    include_str!("../../../shaders/linear/tensor_core.wgsl")
                ),
                indices: Indices::Proven,
            }
        };
    }

    const OF_16: Shader = shader!("linear/tensor_core_16");
    const OF_8: Shader = shader!("linear/tensor_core_8");
    const PARAMS: &[(&str, usize, &[crate::gpu::Field])] =
        &[(LinearParams::NAME, size_of::<LinearParams>(), LinearParams::FIELDS)];
    const ENTRIES: &[(&str, &[Constants])] =
        &[("forward", ACTIVATIONS), ("backward_input", ACTIVATIONS), ("backward_params", &[&[], &[("WORKGROUP_SIZE", 256.0)]])];

    pub(crate) const SHADERS: [ShaderInfo; 2] = [
        ShaderInfo { shader: OF_8, params: PARAMS, entries: ENTRIES },
        ShaderInfo { shader: OF_16, params: PARAMS, entries: ENTRIES },
    ];

    /// Outputs of a workgroup in each direction.
    const TILE: usize = 64;
    /// The largest workgroup for which the shader has room.
    const LARGEST_WORKGROUP: usize = 1024;

    /// The shader for an adapter's matrices.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct TensorCores {
        shader: Shader,
        workgroup_size: usize,
    }

    impl TensorCores {
        /// Those of the adapter, or why they cannot be used.
        pub(crate) fn of(context: &Context) -> std::result::Result<Self, String> {
            let CooperativeMatrix { size, subgroup_size } = context.cooperative_matrix()?;
            // A subgroup has 2×2 matrices of the workgroup's tile.
            let subgroups = (TILE / (2 * size as usize)).pow(2);
            let workgroup_size = subgroups * subgroup_size as usize;
            let most = LARGEST_WORKGROUP.min(context.limits().max_compute_invocations_per_workgroup as usize);
            if !workgroup_size.is_power_of_two() || !(TILE..=most).contains(&workgroup_size) {
                let name = context.name();
                return Err(format!(
                    "{name}: a workgroup of {subgroups} subgroups has {workgroup_size} invocations, at most {most} are possible"
                ));
            }
            Ok(Self { shader: if size == 16 { OF_16 } else { OF_8 }, workgroup_size })
        }

        /// Records a product. That of the parameters' gradient adds up the column of ones by itself.
        pub(in crate::kernels::linear) fn dispatch(
            self,
            context: &mut Context,
            operation: Operation,
            constants: Constants,
            params: &LinearParams,
            buffers: &[(u32, Buffer<u32>)],
        ) -> Result<()> {
            let (entry, constants) = match operation {
                Operation::Forward => ("forward", constants),
                Operation::BackwardInput => ("backward_input", constants),
                Operation::BackwardParams => ("backward_params", &[] as Constants),
            };
            let columns = operation.stored_columns(params.columns as usize);
            let tiles = (params.rows as usize).div_ceil(TILE) * columns.div_ceil(TILE);
            let constants = [constants, &[("WORKGROUP_SIZE", self.workgroup_size as f64)]].concat();
            context.dispatch(self.shader, entry, &constants, params, buffers, Grid::Linear(tiles * params.splits as usize))
        }
    }
}
