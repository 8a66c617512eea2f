//! Counter-based random numbers and random permutations.

mod common;

use common::{checked, expect_mismatch, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, Memory, RandomOps};
use ppo_kernels::kernels::random::RandomStream;
use ppo_kernels::reference::random::{philox4x32_10, unit_interval};
use proptest::prelude::*;

on_every_backend!(
    uniforms_come_from_philox_words,
    uniforms_are_uniform,
    normals_are_normal,
    seeds_and_streams_differ,
    every_length_is_permuted,
    permutations_of_five_are_equally_likely,
    permutations_are_of_streams_in_a_row,
    a_prefix_of_a_stream_does_not_depend_on_its_length,
);

/// `kat_vectors` of Random123, philox4x32 with 10 rounds: counter, key, words.
const KNOWN_ANSWERS: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
    ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
    ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
    (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ),
];

fn stream(len: usize, seed: u64, stream: u64) -> RandomStream {
    RandomStream { len, seed, stream }
}

fn uniforms<B: RandomOps>(backend: &mut B, op: &RandomStream) -> Vec<f64> {
    let mut out = backend.alloc_floats(op.len).unwrap();
    backend.random_uniform(op, &mut out).unwrap();
    backend.read_f64(&out, 0, op.len).unwrap()
}

fn normals<B: RandomOps>(backend: &mut B, op: &RandomStream) -> Vec<f64> {
    let mut out = backend.alloc_floats(op.len).unwrap();
    backend.random_normal(op, &mut out).unwrap();
    backend.read_f64(&out, 0, op.len).unwrap()
}

fn permutation<B: RandomOps>(backend: &mut B, op: &RandomStream) -> Vec<u32> {
    let mut out = backend.alloc_words(op.len).unwrap();
    backend.random_permutations(op, 1, &mut out, 0).unwrap();
    backend.read_words(&out, 0, op.len).unwrap()
}

#[test]
fn philox_gives_the_known_answers_of_random123() {
    for (counter, key, words) in KNOWN_ANSWERS {
        assert_eq!(philox4x32_10(counter, key), words);
    }
}

#[test]
fn the_shaders_philox_gives_the_known_answers_of_random123() {
    for (counter, key, words) in KNOWN_ANSWERS {
        let Some(mut gpu) = common::gpu() else { return };
        let [a, b, c, d] = counter;
        let at_counter = plant(
            include_str!("../shaders/random.wgsl"),
            "vec4<u32>(block, NUMBERS, params.stream_low, params.stream_high)",
            &format!("vec4<u32>({a}u, {b}u, params.stream_low & {c}u, params.stream_high & {d}u)"),
        );
        gpu.context.replace_shader("random", at_counter);
        let seed = u64::from(key[1]) << 32 | u64::from(key[0]);
        let found = uniforms(&mut gpu, &stream(4, seed, u64::MAX));
        assert_eq!(found, words.map(unit_interval::<f64>));
    }
}

fn uniforms_come_from_philox_words<B: RandomOps>(backend: &mut B) {
    // Counter and key zero: Random123's first vector.
    assert_eq!(uniforms(backend, &stream(4, 0, 0)), KNOWN_ANSWERS[0].2.map(unit_interval::<f64>));
    // The documented layout, with all words of counter and key in use.
    let (seed, id) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
    let block = philox4x32_10([2, 0, 0x7654_3210, 0xfedc_ba98], [0x89ab_cdef, 0x0123_4567]);
    assert_eq!(uniforms(backend, &stream(11, seed, id))[8..], block.map(unit_interval::<f64>)[..3]);
}

#[test]
fn both_ends_of_the_uniform_interval_are_open_and_exact_in_f32() {
    assert_eq!(unit_interval::<f32>(0), 2f32.powi(-24));
    assert_eq!(unit_interval::<f32>(u32::MAX), 1.0 - 2f32.powi(-24));
    assert!(unit_interval::<f32>(u32::MAX) < 1.0);
    for word in [0, 1 << 9, 12345 << 9, u32::MAX] {
        assert_eq!(f64::from(unit_interval::<f32>(word)), unit_interval::<f64>(word));
    }
}

/// Largest distance of the empirical distribution from `cdf`, times √n: above 1.95 once in a thousand true samples.
fn kolmogorov_smirnov(mut x: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    x.sort_by(f64::total_cmp);
    let n = x.len() as f64;
    let distance = |(i, &x): (usize, &f64)| (cdf(x) - i as f64 / n).abs().max((cdf(x) - (i + 1) as f64 / n).abs());
    n.sqrt() * x.iter().enumerate().map(distance).fold(0.0, f64::max)
}

/// Mean of the products of neighbours, times √n: standard normal where neighbours of mean 0 and variance 1 are independent.
fn serial_correlation(x: &[f64]) -> f64 {
    x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / (x.len() as f64).sqrt()
}

fn uniforms_are_uniform<B: RandomOps>(backend: &mut B) {
    for seed in 0..3 {
        let x = uniforms(backend, &stream(40_001, seed, 7));
        assert!(x.iter().all(|&x| x > 0.0 && x < 1.0));
        let standard: Vec<f64> = x.iter().map(|x| (x - 0.5) * 12f64.sqrt()).collect();
        assert!(serial_correlation(&standard).abs() < 4.0);
        let ks = kolmogorov_smirnov(x, |x| x);
        assert!(ks < 1.95, "{ks}");
    }
}

fn normals_are_normal<B: RandomOps>(backend: &mut B) {
    for seed in 0..3 {
        let x = normals(backend, &stream(40_001, seed, 8));
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / n;
        // Four standard errors: Var x = 1, Var x² = 2, Var x³ = 15, Var x⁴ = 96.
        for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0f64)] {
            assert!((moment(k) - expected).abs() < 4.0 * (variance / n).sqrt(), "moment {k}: {}", moment(k));
        }
        assert!(serial_correlation(&x).abs() < 4.0);
        let ks = kolmogorov_smirnov(x, |x| 0.5 * (1.0 + erf(x / 2f64.sqrt())));
        assert!(ks < 1.95, "{ks}");
    }
}

fn erf(x: f64) -> f64 {
    1.0 - ppo_kernels::real::Real::erfc(x)
}

fn seeds_and_streams_differ<B: RandomOps>(backend: &mut B) {
    let base = stream(1000, 3, 5);
    let others = [(4, 5), (3, 6), (5, 3), (3 + (1 << 32), 5), (3, 5 + (1 << 32))];
    let (x, order) = (uniforms(backend, &base), permutation(backend, &base));
    assert_eq!(x, uniforms(backend, &base), "the same stream again");
    for (seed, id) in others {
        let y = uniforms(backend, &stream(1000, seed, id));
        let equal = x.iter().zip(&y).filter(|(x, y)| x == y).count();
        assert!(equal < 3, "{seed}, {id}: {equal} equal numbers");
        let fixed = order.iter().zip(&permutation(backend, &stream(1000, seed, id))).filter(|(x, y)| x == y).count();
        assert!(fixed < 10, "{seed}, {id}: {fixed} equal places, 1 expected");
    }
}

fn every_length_is_permuted<B: RandomOps>(backend: &mut B) {
    let lengths = (1..=40).chain([63, 64, 65, 127, 255, 256, 257, 511, 1000, 4096, 4097, 40_000]);
    for len in lengths {
        let mut order = permutation(backend, &stream(len, 1, len as u64));
        let ordered: Vec<u32> = (0..len as u32).collect();
        if len > 8 {
            assert_ne!(order, ordered, "{len}");
        }
        order.sort_unstable();
        assert_eq!(order, ordered, "{len}");
    }
}

fn permutations_of_five_are_equally_likely<B: RandomOps>(backend: &mut B) {
    let draws = 2400;
    let mut out = backend.alloc_words(5 * draws).unwrap();
    backend.random_permutations(&stream(5, 11, 0), draws, &mut out, 0).unwrap();
    let mut counts = std::collections::HashMap::new();
    for order in backend.read_words(&out, 0, 5 * draws).unwrap().chunks_exact(5) {
        *counts.entry(order.to_vec()).or_insert(0u32) += 1;
    }
    // Chi-squared with 119 degrees of freedom: above 178 once in ten thousand.
    let expected = draws as f64 / 120.0;
    let seen: f64 = counts.values().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    let chi_squared = seen + (120 - counts.len()) as f64 * expected;
    assert!(chi_squared < 178.0, "{chi_squared}");
}

fn permutations_are_of_streams_in_a_row<B: RandomOps>(backend: &mut B) {
    let (len, offset) = (300, 7);
    // The last stream of all is followed by the first.
    for first in [5, u64::from(u32::MAX) - 1, u64::MAX - 1] {
        let mut out = backend.alloc_words(offset + 4 * len).unwrap();
        backend.random_permutations(&stream(len, 9, first), 4, &mut out, offset).unwrap();
        for k in 0..4 {
            let found = backend.read_words(&out, offset + k * len, len).unwrap();
            assert_eq!(found, permutation(backend, &stream(len, 9, first.wrapping_add(k as u64))), "{first} + {k}");
        }
    }
}

fn a_prefix_of_a_stream_does_not_depend_on_its_length<B: RandomOps>(backend: &mut B) {
    let long = normals(backend, &stream(1025, 1, 2));
    for len in [1, 2, 3, 5, 1023] {
        assert_eq!(normals(backend, &stream(len, 1, 2)), long[..len]);
    }
}

#[test]
fn small_permutations_put_every_value_everywhere() {
    // Marginals only (n = 2 .. 16): each place takes each value equally often, also where the network alternates two halves of two bits.
    let mut cpu = Cpu::<f32>::new();
    for len in 2..=16usize {
        let draws = 4000;
        let mut counts = vec![0u32; len * len];
        for draw in 0..draws {
            let order = permutation(&mut cpu, &stream(len, 5, draw));
            order.iter().enumerate().for_each(|(place, &value)| counts[place * len + value as usize] += 1);
        }
        let expected = draws as f64 / len as f64;
        let chi_squared: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        let freedom = ((len - 1) * (len - 1)) as f64;
        assert!(chi_squared < freedom + 4.5 * (2.0 * freedom).sqrt() + 8.0, "{len}: {chi_squared}");
    }
}

#[test]
fn normals_stay_within_a_tolerance_that_f32_needs() {
    let mut both = CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new());
    let mut out = both.alloc_floats(100_000).unwrap();
    both.random_normal(&stream(100_000, 9, 9), &mut out).unwrap();
    let worst = both.worst()[&("random_normal", "out")];
    assert!(worst.ratio() > 0.05 && worst.ratio() <= 1.0, "{worst:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_stream_permutes_any_length(len in 1usize..3000, seed: u64, id: u64) {
        let mut order = permutation(&mut Cpu::<f32>::new(), &stream(len, seed, id));
        order.sort_unstable();
        prop_assert!(order.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }
}

fn with_fault(from: &str, to: &str) -> Option<CrossCheck<Gpu, Cpu<f64>>> {
    let mut both = checked()?;
    both.a.context.replace_shader("random", plant(include_str!("../shaders/random.wgsl"), from, to));
    Some(both)
}

#[test]
fn a_wrong_generator_is_caught() {
    let Some(mut both) = with_fault("(second >> 16u)", "0u") else { return };
    let mut out = both.alloc_floats(100).unwrap();
    let mismatch = expect_mismatch(both.random_uniform(&stream(100, 1, 1), &mut out));
    assert_eq!((mismatch.operation, mismatch.tensor), ("random_uniform", "out"));
}

#[test]
fn the_builtin_logarithm_near_one_is_not_good_enough() {
    // The error that WGSL allows the builtin: 2^-21 near 1.
    let Some(mut both) = with_fault("if u < 0.5 {", "if u > 0.5 { return -log(u) + 0x1p-21f; } else {") else { return };
    let mut out = both.alloc_floats(4000).unwrap();
    let mismatch = expect_mismatch(both.random_normal(&stream(4000, 1, 1), &mut out));
    assert_eq!((mismatch.operation, mismatch.tensor), ("random_normal", "out"));
}

#[test]
fn a_wrong_permutation_is_caught() {
    for (from, to) in [
        ("mix(high + keys.w)", "mix(high + keys.x)"),
        ("permutation_params.stream_low + which", "permutation_params.stream_low"),
        ("select(0u, 1u, stream_low < which)", "0u"),
        ("which * permutation_params.len + i", "i"),
    ] {
        let Some(mut both) = with_fault(from, to) else { return };
        let mut out = both.alloc_words(200).unwrap();
        // The second of the two streams has another high word.
        let mismatch = expect_mismatch(both.random_permutations(&stream(100, 1, u64::from(u32::MAX)), 2, &mut out, 0));
        assert_eq!((mismatch.operation, mismatch.tensor), ("random_permutations", "out"), "{from}");
    }
}

#[test]
fn names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let (mut floats, mut words) = (cpu.alloc_floats(4).unwrap(), cpu.alloc_words(4).unwrap());
    let mut named = |op: RandomStream, count: usize, offset: usize| match cpu.random_permutations(&op, count, &mut words, offset)
    {
        Err(Error::Shape { argument, .. }) => argument,
        other => panic!("{op:?}, {count} at {offset}: {other:?}"),
    };
    assert_eq!(named(stream(0, 0, 0), 1, 0), "len");
    assert_eq!(named(stream(1 << 32, 0, 0), 1, 0), "len");
    assert_eq!(named(stream(4, 0, 0), 0, 0), "count");
    assert_eq!(named(stream(5, 0, 0), 1, 0), "out");
    assert_eq!(named(stream(2, 0, 0), 3, 0), "out");
    assert_eq!(named(stream(4, 0, 0), 1, 1), "out");
    assert_eq!(named(stream(4, 0, 0), 1, usize::MAX), "offset");
    assert_eq!(named(stream(4, 0, 0), usize::MAX, 0), "count");
    assert_eq!(named(stream(1 << 20, 0, 0), 1 << 20, 0), "offset");
    assert!(cpu.random_uniform(&stream(5, 0, 0), &mut floats).is_err());
    assert!(cpu.random_normal(&stream(0, 0, 0), &mut floats).is_err());
}
