//! Counter-based random numbers (Philox4x32-10, Salmon et al. 2011) and random permutations, the same on every backend.
//!
//! Nothing is stored: an element's value is a function of (seed, stream, index), so any part of a stream can be made again.
//!
//! The generator's counter is (i/4 of element i, 0, low word of the stream, high word of the stream), its key (low word of the seed,
//! high word of the seed). Element i takes word i mod 4 of that block; normal numbers take the words in pairs. The round keys of a
//! permutation are the words of blocks 0..6 with [`PERMUTATION`] in the counter's second word, so a permutation and numbers of the same
//! stream share nothing.

use crate::error::{Error, Result};
use crate::shape::{require_len, require_size};
use crate::tolerance::{F32_ROUNDOFF, Tolerance};

/// Second word of the counter for numbers.
pub(crate) const NUMBERS: u32 = 0;
/// Second word of the counter for the round keys of permutations.
pub const PERMUTATION: u32 = 0x7065_726d;
/// Rounds of the Feistel network. Mitchell et al. 2021 find 24 enough for statistical tests even on small domains.
pub const ROUNDS: usize = 24;
/// Bits of the smallest domain. On fewer, halves of one bit give the rounds too little to mix; cycle walking skips the surplus.
const LEAST_BITS: u32 = 4;

/// A stretch of a random stream, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomStream {
    /// Number of values.
    pub len: usize,
    /// Key.
    pub seed: u64,
    /// Which of the 2⁶⁴ independent streams of that key.
    pub stream: u64,
}

/// The network behind a permutation: the widths of its two halves and its round keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feistel {
    /// Bits of the lower half.
    pub low_bits: u32,
    /// Bits of the upper half, as many or one less.
    pub high_bits: u32,
    /// One key a round.
    pub round_keys: [[u32; 4]; ROUNDS / 4],
}

impl RandomStream {
    /// Every step from word to number is exact.
    pub const UNIFORM_TOLERANCE: Tolerance = Tolerance::Exact;

    /// x = √(−2 log u)·cos θ, all factors with small relative errors, in units of 2u (one ULP is at most that). −log u: 3 by the
    /// builtin below ½; above, division 2.5, the sum below it ½, the series 4 roundings of ½ and 1/17·3⁻¹⁶ ≪ 1: 5. The root halves
    /// that, and adds 4.5 (WGSL: as 1/inverseSqrt, 2 + 2.5). Angle: its factor and product 1 together, which cos passes on with
    /// θ·tan θ ≤ π/4; polynomial: 3 roundings of ½ and a truncation of 2·10⁻⁹ ≪ 1: 2. Final product ½. 2.5 + 4.5 + 3 + 0.5 = 10.5.
    pub const NORMAL_TOLERANCE: Tolerance = Tolerance::Uniform { abs: 0.0, rel: 10.5 * 2.0 * F32_ROUNDOFF };

    pub(crate) fn check(&self, out: usize) -> Result<()> {
        require_size("len", self.len)?;
        require_len("out", out, self.len)
    }

    pub(crate) fn check_permutations(&self, count: usize, out: usize, offset: usize) -> Result<()> {
        require_size("len", self.len)?;
        require_size("count", count)?;
        let end = self.len.checked_mul(count).and_then(|len| len.checked_add(offset)).filter(|&end| end <= u32::MAX as usize);
        let end = end.ok_or_else(|| Error::shape("offset", "offset + count x len below 2^32", offset))?;
        require_len("out", out, end)
    }

    /// The stream that is `further` streams on.
    pub(crate) fn following(&self, further: u64) -> Self {
        Self { stream: self.stream.wrapping_add(further), ..*self }
    }

    /// Bits of the lower and the upper half of the network that permutes `0..len`.
    pub(crate) fn halves(&self) -> (u32, u32) {
        let largest = self.len.saturating_sub(1) as u32;
        let bits = (u32::BITS - largest.leading_zeros()).max(LEAST_BITS);
        (bits.div_ceil(2), bits / 2)
    }

    /// The network that permutes `0..len`.
    pub fn feistel(&self) -> Feistel {
        let (low_bits, high_bits) = self.halves();
        let round_keys = std::array::from_fn(|block| block_words(self.seed, self.stream, PERMUTATION, block as u32));
        Feistel { low_bits, high_bits, round_keys }
    }
}

/// Philox4x32-10, for the host.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let x = 0xd251_1f53 * u64::from(counter[0]);
        let z = 0xcd9e_8d57 * u64::from(counter[2]);
        let high = |product: u64| (product >> 32) as u32;
        counter = [high(z) ^ counter[1] ^ key[0], z as u32, high(x) ^ counter[3] ^ key[1], x as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// The four words of a block of a stream.
pub(crate) fn block_words(seed: u64, stream: u64, purpose: u32, block: u32) -> [u32; 4] {
    philox4x32_10([block, purpose, stream as u32, (stream >> 32) as u32], [seed as u32, (seed >> 32) as u32])
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::RandomStream;
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader =
        Shader { name: "random", source: include_str!("../../shaders/random.wgsl"), indices: Indices::Proven };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[
            (RandomParams::NAME, size_of::<RandomParams>(), RandomParams::FIELDS),
            (PermutationParams::NAME, size_of::<PermutationParams>(), PermutationParams::FIELDS),
        ],
        entries: &[("uniform_numbers", &[&[]]), ("normal_numbers", &[&[]]), ("permutations", &[&[]])],
    }];

    /// The shader's default. 256 is the most that WebGPU promises.
    const WORKGROUP_SIZE: usize = 256;

    shader_params! {
        struct RandomParams {
            len: u32,
            seed_low: u32,
            seed_high: u32,
            stream_low: u32,
            stream_high: u32,
        }
    }

    shader_params! {
        struct PermutationParams {
            len: u32,
            count: u32,
            offset: u32,
            workgroups_each: u32,
            low_bits: u32,
            high_bits: u32,
            seed_low: u32,
            seed_high: u32,
            stream_low: u32,
            stream_high: u32,
        }
    }

    /// Low and high word.
    fn words(x: u64) -> [u32; 2] {
        [x as u32, (x >> 32) as u32]
    }

    fn record_numbers(context: &mut Context, entry: &'static str, op: &RandomStream, out: &Buffer<f32>) -> Result<()> {
        op.check(out.len())?;
        let ([seed_low, seed_high], [stream_low, stream_high]) = (words(op.seed), words(op.stream));
        let params = RandomParams { len: op.len as u32, seed_low, seed_high, stream_low, stream_high };
        context.dispatch(SHADER, entry, &[], &params, &[bind("out", out)], Grid::covering(op.len.div_ceil(4), WORKGROUP_SIZE))
    }

    pub(crate) fn record_uniform(context: &mut Context, op: &RandomStream, out: &Buffer<f32>) -> Result<()> {
        record_numbers(context, "uniform_numbers", op, out)
    }

    pub(crate) fn record_normal(context: &mut Context, op: &RandomStream, out: &Buffer<f32>) -> Result<()> {
        record_numbers(context, "normal_numbers", op, out)
    }

    pub(crate) fn record_permutations(
        context: &mut Context,
        op: &RandomStream,
        count: usize,
        out: &Buffer<u32>,
        offset: usize,
    ) -> Result<()> {
        op.check_permutations(count, out.len(), offset)?;
        let ([seed_low, seed_high], [stream_low, stream_high]) = (words(op.seed), words(op.stream));
        let (low_bits, high_bits) = op.halves();
        let workgroups_each = op.len.div_ceil(WORKGROUP_SIZE);
        let params = PermutationParams {
            len: op.len as u32,
            count: count as u32,
            offset: offset as u32,
            workgroups_each: workgroups_each as u32,
            low_bits,
            high_bits,
            seed_low,
            seed_high,
            stream_low,
            stream_high,
        };
        context.dispatch(SHADER, "permutations", &[], &params, &[bind("permuted", out)], Grid::Linear(count * workgroups_each))
    }
}
