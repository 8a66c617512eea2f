//! Products on tensor cores: operands of one or two numbers of f16, sums in f32. How far off they may be, and the binding to wgpu.

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
    /// The same with two numbers of f16 for each operand, in three products; about as exact as f32, within the range of f16
    F16x3TensorCore,
}

/// Unit roundoff of f16, 2⁻¹¹.
const F16_ROUNDOFF: f64 = 1.0 / 2048.0;
/// Half the distance between numbers of f16 below 2⁻¹⁴: 2⁻²⁵.
const F16_SUBNORMAL: f64 = 1.0 / 33_554_432.0;
/// What the second number of an operand is multiplied by, as in the shader.
const LOW_SCALE: f64 = 2048.0;

/// The power of two, not below the batch, by which gradients of pre-activations are multiplied on their way into f16.
pub fn gradient_scale(batch: usize) -> f64 {
    batch.next_power_of_two() as f64
}

/// Of the magnitudes of a product's operand, multiplied by `scale` on its way into f16, those whose products with the other operand's add up to `rounded`
/// of [`tensor_core_tolerance`]; none in f32.
///
/// A number â of f16 is |a|·2⁻¹¹ + 2⁻²⁵ away from a at most. Of two, the second is as far from what the first leaves, which is no larger than that, divided
/// by 2¹¹ because it was multiplied by it: |a|·2⁻²² + 2⁻³⁶ are left. The product of both operands' second numbers is not made.
pub fn rounded_magnitudes(precision: Precision, magnitudes: &[f64], scale: f64) -> Vec<Vec<f64>> {
    let left = |from: f64, by: f64| -> Vec<f64> {
        magnitudes.iter().map(|a| from * a + (F16_ROUNDOFF * a + F16_SUBNORMAL / scale) / by).collect()
    };
    match precision {
        Precision::F32 => Vec::new(),
        Precision::F16TensorCore => vec![left(1.0, 1.0)],
        Precision::F16x3TensorCore => vec![left(1.0, LOW_SCALE), left(0.0, 1.0)],
    }
}

/// The bound in f32 and what tensor cores add to it, through the steepest slope of an activation.
///
/// Let â and b̂ be what stands for the operands, `magnitudes` = Σ|a||b| and `rounded` = the sum of the products of [`rounded_magnitudes`]. |â − a| and
/// |b̂ − b| are what the first of these adds to |a| and |b|, the others what is left out: Σ|âb̂ − ab| ≤ `rounded` − `magnitudes`. Products of halves are
/// exact in f32; their sum of `terms` is off by γ of `rounded`, twice as large as in f32 because adapters may truncate where they should round. (Sums of products
/// with second numbers have twice as many terms, of 2⁻¹⁰ of the size: the bound in f32, which is added too, is more than that.)
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
    use super::super::binding::{LinearParams, Operation, activations};
    use super::Precision;
    use crate::error::Result;
    use crate::gpu::{Bound, Context, CooperativeMatrix, Grid, Indices, Shader, ShaderParams};
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
    const ALONG: [(&str, f64); 2] = [("A_ACROSS", 0.0), ("B_ACROSS", 0.0)];
    const B_ACROSS: [(&str, f64); 2] = [("A_ACROSS", 0.0), ("B_ACROSS", 1.0)];
    const BOTH_ACROSS: [(&str, f64); 2] = [("A_ACROSS", 1.0), ("B_ACROSS", 1.0)];

    /// The tiles of adapters with subgroups of 32 and matrices of 16×16 or 8×8, and of those with subgroups of 8 and 8×8; with subgroups of 64 or 16
    /// there are others.
    macro_rules! entries {
        ($(($halves:literal, $tile:literal, $workgroup:literal, $vectors:literal)),+) => {
            &[
                ("forward", activations!($([ALONG[0], ALONG[1], ("HALVES", $halves), ("TILE", $tile), ("WORKGROUP_SIZE", $workgroup), ("VECTORS", $vectors)]),+)),
                ("backward_input", activations!($([B_ACROSS[0], B_ACROSS[1], ("HALVES", $halves), ("TILE", $tile), ("WORKGROUP_SIZE", $workgroup), ("VECTORS", $vectors)]),+)),
                ("backward_params", &[$(&[BOTH_ACROSS[0], BOTH_ACROSS[1], ("HALVES", $halves), ("TILE", $tile), ("WORKGROUP_SIZE", $workgroup), ("VECTORS", $vectors)]),+]),
            ]
        };
    }
    const ENTRIES: &[(&str, &[Constants])] = entries![
        (1.0, 64.0, 128.0, 0.0),
        (1.0, 64.0, 128.0, 1.0),
        (1.0, 64.0, 256.0, 1.0),
        (1.0, 64.0, 512.0, 1.0),
        (1.0, 128.0, 256.0, 0.0),
        (1.0, 128.0, 256.0, 1.0),
        (1.0, 128.0, 1024.0, 1.0),
        (2.0, 64.0, 128.0, 0.0),
        (2.0, 64.0, 128.0, 1.0),
        (2.0, 64.0, 256.0, 1.0),
        (2.0, 64.0, 512.0, 1.0),
        (2.0, 128.0, 256.0, 0.0),
        (2.0, 128.0, 256.0, 1.0)
    ];

    pub(crate) const SHADERS: [ShaderInfo; 2] = [
        ShaderInfo { shader: OF_8, params: PARAMS, entries: ENTRIES },
        ShaderInfo { shader: OF_16, params: PARAMS, entries: ENTRIES },
    ];

    /// Outputs of a workgroup in each direction.
    const SIDES: [usize; 2] = [64, 128];
    /// Tiles, counted once a stretch, from which on the larger ones are made: one for each of a large GPU's some 130 multiprocessors.
    const BUSY: usize = 128;
    /// The depth of which operands are in workgroup memory at once.
    const DEPTH: usize = 32;

    /// Numbers of f16 that stand for an operand.
    fn halves(precision: Precision) -> usize {
        if precision == Precision::F16x3TensorCore { 2 } else { 1 }
    }

    /// A way to share a product among workgroups. Each makes the same bits.
    #[derive(Debug, Clone, Copy)]
    struct Tile {
        side: usize,
        workgroup_size: usize,
    }

    impl Tile {
        /// That of `side` with an adapter's matrices and subgroups, or what it lacks.
        fn of(context: &Context, matrix: CooperativeMatrix, halves: usize, side: usize) -> std::result::Result<Self, String> {
            // A subgroup has 2×2 matrices of a small tile, 4×2 of a large one.
            let size = matrix.size as usize;
            let subgroups = side / (side / 32 * size) * (side / (2 * size));
            let workgroup_size = subgroups * matrix.subgroup_size as usize;
            let limits = context.limits();
            let most = (side * DEPTH / 4).min(limits.max_compute_invocations_per_workgroup as usize);
            if !workgroup_size.is_power_of_two() || !(64..=most).contains(&workgroup_size) {
                return Err(format!(
                    "a workgroup of {subgroups} subgroups has {workgroup_size} invocations, at most {most} are possible"
                ));
            }
            let room = 4 * halves * side * (DEPTH + 8) + 4 * (subgroups * size * size).max(4 * workgroup_size);
            if room > limits.max_compute_workgroup_storage_size as usize {
                let most = limits.max_compute_workgroup_storage_size;
                return Err(format!("a workgroup needs {room} bytes of workgroup memory, at most {most} are possible"));
            }
            Ok(Self { side, workgroup_size })
        }

        fn count(self, rows: usize, columns: usize) -> usize {
            rows.div_ceil(self.side) * columns.div_ceil(self.side)
        }
    }

    impl LinearParams {
        /// Whether four neighbours of either operand, in the direction in which it is contiguous, always are a vector of its buffer.
        fn operands_are_vectors(&self) -> bool {
            let a = [self.a_offset, self.a_row_stride.max(self.a_depth_stride)];
            let b = [self.b_offset, self.b_column_stride.max(self.b_depth_stride)];
            [a, b].as_flattened().iter().all(|distance| distance.is_multiple_of(4))
        }
    }

    /// The shader for an adapter's matrices, and its tiles.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct TensorCores {
        precision: Precision,
        shader: Shader,
        small: Tile,
        large: Option<Tile>,
        /// Whether every product is made in large tiles.
        always_large: bool,
    }

    impl TensorCores {
        /// Those of the adapter, or why they cannot be used.
        pub(crate) fn of(context: &Context, precision: Precision) -> std::result::Result<Self, String> {
            let matrix = context.cooperative_matrix()?;
            let [small, large] = SIDES.map(|side| Tile::of(context, matrix, halves(precision), side));
            let small = small.map_err(|reason| format!("{}: {reason}", context.name()))?;
            let shader = if matrix.size == 16 { OF_16 } else { OF_8 };
            Ok(Self { precision, shader, small, large: large.ok(), always_large: false })
        }

        pub(crate) fn precision(self) -> Precision {
            self.precision
        }

        /// The same with every product in large tiles, where there are any.
        pub(crate) fn in_large_tiles(self) -> Option<Self> {
            self.large.map(|_| Self { always_large: true, ..self })
        }

        /// Large tiles read operands half as often. They pay where they leave no multiprocessor idle and next to nothing of them lies outside.
        fn tile(self, rows: usize, columns: usize, splits: usize) -> Tile {
            let pays = |large: &Tile| {
                let (few, many) = (large.count(rows, columns), self.small.count(rows, columns));
                self.always_large || few * splits >= BUSY && 8 * 4 * few <= 9 * many
            };
            self.large.filter(pays).unwrap_or(self.small)
        }

        /// Records a product. That of the parameters' gradient adds up the column of ones by itself.
        pub(in crate::kernels::linear) fn dispatch(
            self,
            context: &mut Context,
            operation: Operation,
            constants: Constants,
            params: &LinearParams,
            buffers: &[Bound],
        ) -> Result<()> {
            let (entry, activation, across): (_, Constants, _) = match operation {
                Operation::Forward => ("forward", constants, ALONG),
                Operation::BackwardInput => ("backward_input", constants, B_ACROSS),
                Operation::BackwardParams => ("backward_params", &[], BOTH_ACROSS),
            };
            let [rows, splits] = [params.rows, params.splits].map(|size| size as usize);
            let columns = operation.stored_columns(params.columns as usize);
            let tile = self.tile(rows, columns, splits);
            let vectors = params.operands_are_vectors();
            let constants = [
                activation,
                &across,
                &[
                    ("HALVES", halves(self.precision) as f64),
                    ("TILE", tile.side as f64),
                    ("WORKGROUP_SIZE", tile.workgroup_size as f64),
                    ("VECTORS", f64::from(u8::from(vectors))),
                ],
            ]
            .concat();
            let mut buffers = buffers.to_vec();
            for (operand, as_vectors) in [("a", "a_vectors"), ("b", "b_vectors")] {
                let same = buffers.iter().find(|(name, _)| *name == operand).map(|(_, buffer)| buffer.clone());
                let readable = same.filter(|_| vectors);
                let buffer = readable.map_or_else(|| context.scratch("linear: no vectors", 4), Ok)?;
                buffers.push((as_vectors, buffer));
            }
            let grid = Grid::Linear(tile.count(rows, columns) * splits);
            context.dispatch(self.shader, entry, &constants, params, &buffers, grid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest number of f16, half way the even one.
    fn nearest_half(x: f64) -> f64 {
        let distance = 2f64.powi((x.abs().log2().floor() as i32).max(-14) - 10);
        (x / distance).round_ties_even() * distance
    }

    /// High and low half, the latter as large as it is meant.
    fn halves(x: f64) -> (f64, f64) {
        let high = nearest_half(x);
        (high, nearest_half((x - high) * LOW_SCALE) / LOW_SCALE)
    }

    fn bound(precision: Precision, a: f64, b: f64) -> f64 {
        let [a_magnitudes, b_magnitudes] = [a, b].map(|x| rounded_magnitudes(precision, &[x], 1.0));
        a_magnitudes.iter().zip(&b_magnitudes).map(|(a, b)| a[0] * b[0]).sum::<f64>() - a * b
    }

    /// Numbers of every size that f16 has, normal, subnormal and below, with all kinds of mantissas.
    fn operands() -> impl Iterator<Item = f64> {
        (-40..16).flat_map(|exponent| (0..41).map(move |i| (1.0 + f64::from(i * 397 % 1009) / 1009.0) * 2f64.powi(exponent)))
    }

    #[test]
    fn products_of_halves_are_as_near_as_they_are_said_to_be() {
        let (mut worst, mut without_a_product) = ([0f64; 2], 0f64);
        for a in operands() {
            for b in operands().step_by(13) {
                let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
                let once = a_high * b_high;
                let thrice = once + (a_high * b_low + a_low * b_high);
                for (worst, (precision, product)) in
                    worst.iter_mut().zip([(Precision::F16TensorCore, once), (Precision::F16x3TensorCore, thrice)])
                {
                    *worst = worst.max((product - a * b).abs() / bound(precision, a, b));
                }
                without_a_product =
                    without_a_product.max((thrice - a_low * b_high - a * b).abs() / bound(Precision::F16x3TensorCore, a, b));
            }
        }
        assert!(worst.iter().all(|worst| (0.5..=1.0).contains(worst)), "{worst:?}");
        assert!(without_a_product > 100.0, "{without_a_product}");
    }
}
