//! Twin of `shaders/random.wgsl`.

use crate::kernels::random::{NUMBERS, PERMUTATION, ROUNDS, RandomStream};
use crate::real::Real;

/// Philox4x32-10: four random words for each counter and key (Salmon et al. 2011; Random123's `philox4x32_R(10, ctr, key)`).
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let (x, z) = (0xd251_1f53 * u64::from(a), 0xcd9e_8d57 * u64::from(c));
        (a, b, c, d) = ((z >> 32) as u32 ^ b ^ k, z as u32, (x >> 32) as u32 ^ d ^ l, x as u32);
        (k, l) = (k.wrapping_add(0x9e37_79b9), l.wrapping_add(0xbb67_ae85));
    }
    [a, b, c, d]
}

fn words(op: &RandomStream, purpose: u32, block: usize) -> [u32; 4] {
    let counter = [block as u32, purpose, op.stream as u32, (op.stream >> 32) as u32];
    philox4x32_10(counter, [op.seed as u32, (op.seed >> 32) as u32])
}

/// ((word >> 9) + ½)·2⁻²³.
pub fn unit_interval<T: Real>(word: u32) -> T {
    T::of((f64::from(word >> 9) + 0.5) / 8_388_608.0)
}

/// Uniform numbers in (0, 1): element i is word i mod 4 of block i/4.
pub fn uniform<T: Real>(op: &RandomStream, out: &mut [T]) {
    for (i, x) in out[..op.len].iter_mut().enumerate() {
        *x = unit_interval(words(op, NUMBERS, i / 4)[i % 4]);
    }
}

/// Standard normal numbers (Box and Muller): √(−2 log u)·(cos θ, sin θ) of each pair of words. u is the first word's uniform number.
/// θ = π/2·(q + t): q are the two highest bits of the second word, t its next 23 bits, half a step off the ends, in (−½, ½).
pub fn normal<T: Real>(op: &RandomStream, out: &mut [T]) {
    for (i, x) in out[..op.len].iter_mut().enumerate() {
        let pair = &words(op, NUMBERS, i / 4)[i % 4 / 2 * 2..];
        let radius = (-2.0 * unit_interval::<f64>(pair[0]).ln()).sqrt();
        let t = (f64::from(pair[1] >> 7 & 0x7f_ffff) + 0.5) / 8_388_608.0 - 0.5;
        let (sine, cosine) = (t * std::f64::consts::FRAC_PI_2).sin_cos();
        // A rotation by q quarter turns, exactly.
        let point = [[cosine, sine], [-sine, cosine], [-cosine, -sine], [sine, -cosine]][(pair[1] >> 30) as usize];
        *x = T::of(radius * point[i % 2]);
    }
}

/// `out[i]` = the first value below len on the cycle F(i), F(F(i)), … of a Feistel network F, whose halves change each other in turn.
pub fn permutation(op: &RandomStream, out: &mut [u32]) {
    let (low_bits, high_bits) = op.halves();
    let keys: Vec<u32> = (0..ROUNDS / 4).flat_map(|block| words(op, PERMUTATION, block)).collect();
    let network = |value: u32| {
        let mut halves = [value & ((1 << low_bits) - 1), value >> low_bits];
        for (round, key) in keys.iter().enumerate() {
            // Even rounds change the upper half by the lower one.
            let (changed, by, bits) = if round % 2 == 0 { (1, 0, high_bits) } else { (0, 1, low_bits) };
            halves[changed] ^= mix(halves[by].wrapping_add(*key)) & ((1 << bits) - 1);
        }
        halves[1] << low_bits | halves[0]
    };
    for (i, value) in out[..op.len].iter_mut().enumerate() {
        *value = network(i as u32);
        while *value as usize >= op.len {
            *value = network(*value);
        }
    }
}

/// A hash of 32 bits in which each bit of the word changes about half of the result's.
fn mix(word: u32) -> u32 {
    let x = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
