//! Random numbers: several of them side by side in vectors, parts of a stream on all threads.

use crate::elementary::vectorised;
use crate::kernels::random::{Feistel, NUMBERS, RandomStream, block_words};
use crate::real::Real;
use rayon::prelude::*;

/// Numbers a task: enough to make handing it to a thread worth it.
const PARALLEL_LEN: usize = 1 << 14;

/// ((word >> 9) + ½)·2⁻²³, exactly.
fn unit_interval(word: u32) -> f32 {
    f32::of((f64::from(word >> 9) + 0.5) / f64::from(1 << 23))
}

/// √(−2 log u)·(cos θ, sin θ), θ = π/2·(q + t): q are the two highest bits of `angle_word`, t its next 23, half a step off the ends, in
/// (−½, ½).
fn normal_pair(radius_word: u32, angle_word: u32) -> [f32; 2] {
    let radius = (f32::of(-2.0) * unit_interval(radius_word).ln()).sqrt();
    let t = (f64::from((angle_word >> 7) & 0x7f_ffff) + 0.5) / f64::from(1 << 23) - 0.5;
    let (sine, cosine) = f32::of(t * std::f64::consts::FRAC_PI_2).sin_cos();
    let [x, y] = match angle_word >> 30 {
        0 => [cosine, sine],
        1 => [-sine, cosine],
        2 => [-cosine, -sine],
        _ => [sine, -cosine],
    };
    [radius * x, radius * y]
}

fn fill(op: &RandomStream, out: &mut [f32], numbers: impl Fn([u32; 4]) -> [f32; 4] + Sync) {
    let fill_part = |first_block: usize, part: &mut [f32]| {
        for (i, block) in part.chunks_mut(4).enumerate() {
            let words = block_words(op.seed, op.stream, NUMBERS, (first_block + i) as u32);
            block.copy_from_slice(&numbers(words)[..block.len()]);
        }
    };
    let out = &mut out[..op.len];
    if op.len <= PARALLEL_LEN {
        fill_part(0, out);
    } else {
        out.par_chunks_mut(PARALLEL_LEN).enumerate().for_each(|(i, part)| fill_part(i * PARALLEL_LEN / 4, part));
    }
}

/// Uniform numbers in (0, 1).
pub fn uniform(op: &RandomStream, out: &mut [f32]) {
    fill(op, out, |words| words.map(unit_interval));
}

/// Standard normal numbers.
pub fn normal(op: &RandomStream, out: &mut [f32]) {
    fill(op, out, |[a, b, c, d]| {
        let ([x, y], [z, w]) = (normal_pair(a, b), normal_pair(c, d));
        [x, y, z, w]
    });
}

#[inline(always)]
fn mix(word: u32) -> u32 {
    let x = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A round: changes one half by the other.
#[inline(always)]
fn round<const N: usize>(half: &mut [u32; N], by: &[u32; N], key: u32, mask: u32) {
    for (half, by) in half.iter_mut().zip(by) {
        *half ^= mix(by.wrapping_add(key)) & mask;
    }
}

/// Of N values side by side: a round waits for the one before.
#[inline(always)]
fn permute<const N: usize>(network: &Feistel, values: [u32; N]) -> [u32; N] {
    let (low_mask, high_mask) = ((1 << network.low_bits) - 1, (1 << network.high_bits) - 1);
    let (mut low, mut high) = (values.map(|value| value & low_mask), values.map(|value| value >> network.low_bits));
    for keys in network.round_keys {
        round(&mut high, &low, keys[0], high_mask);
        round(&mut low, &high, keys[1], low_mask);
        round(&mut high, &low, keys[2], high_mask);
        round(&mut low, &high, keys[3], low_mask);
    }
    std::array::from_fn(|i| high[i] << network.low_bits | low[i])
}

/// Values that go through the network together.
const SIDE_BY_SIDE: usize = 32;

/// `out[i]` = the first value below len on the cycle i, F(i), F(F(i)), … of a Feistel network F.
pub fn permutation(op: &RandomStream, out: &mut [u32]) {
    let network = op.feistel();
    let fill_part = |first: usize, part: &mut [u32]| {
        // A loop without branches for all of them, then further along the cycle for those that left the range.
        vectorised!({
            for (i, block) in part.chunks_mut(SIDE_BY_SIDE).enumerate() {
                let first = (first + i * SIDE_BY_SIDE) as u32;
                let permuted = permute::<SIDE_BY_SIDE>(&network, std::array::from_fn(|lane| first.wrapping_add(lane as u32)));
                block.copy_from_slice(&permuted[..block.len()]);
            }
        });
        for value in part {
            while *value as usize >= op.len {
                [*value] = permute(&network, [*value]);
            }
        }
    };
    let out = &mut out[..op.len];
    if op.len <= PARALLEL_LEN {
        fill_part(0, out);
    } else {
        out.par_chunks_mut(PARALLEL_LEN).enumerate().for_each(|(i, part)| fill_part(i * PARALLEL_LEN, part));
    }
}
