//! Normalisation and explained variance.

mod common;

use common::{Draw, checked, expect_mismatch, plant};
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, Memory, NormalizeOps, Variant};
use ppo_kernels::kernels::normalize::{EpsilonMode, Normalize};
use ppo_kernels::layout::stat;
use ppo_kernels::{Error, Result};
use proptest::prelude::{prop_assert, proptest};

/// [`on_every_backend!`], with one and with two dispatches on the GPU.
macro_rules! on_every_variant {
    ($($name:ident),+ $(,)?) => {
        on_every_backend!($($name),+);
        mod gpu_chunks { $(#[test] fn $name() { super::on_gpu(super::Variant::Plain, |gpu| super::$name(gpu)) })+ }
    };
}

fn on_gpu(variant: Variant, body: impl FnOnce(&mut Gpu)) {
    if let Some(mut gpu) = common::gpu() {
        gpu.variant = variant;
        body(&mut gpu);
    }
}

const VARIANTS: [Variant; 2] = [Variant::Plain, Variant::Fast];
const MODES: [EpsilonMode; 3] = [EpsilonMode::AddToStd, EpsilonMode::AddToVariance, EpsilonMode::Max];

on_every_variant!(
    gives_mean_zero_and_standard_deviation_one,
    divides_by_what_each_mode_says,
    a_mean_of_a_thousand_costs_no_accuracy,
    an_outlier_in_front_costs_no_more_than_its_own_size,
    constants_become_zero,
    one_value_stays_with_ddof_one_and_becomes_zero_without,
    touches_its_column_only,
    vectors_have_moments_of_their_own,
    seventy_thousand_groups_have_moments_of_their_own,
    a_spread_of_any_size_is_normalised,
    chunks_of_any_size_are_joined,
    an_epsilon_counts_at_any_size,
    explains_known_variances,
    explained_variance_survives_a_mean_of_a_thousand,
    explained_variance_of_constant_returns_is_nan,
    explains_variances_of_any_size,
);

fn torch(len: usize) -> Normalize {
    Normalize { len, vectors: 1, offset: 0, stride: 1, ddof: 1, epsilon: 1e-8, epsilon_mode: EpsilonMode::AddToStd }
}

/// What was normalised, mean, standard deviation.
fn normalize<B: NormalizeOps>(backend: &mut B, op: &Normalize, x: &[f32]) -> Result<(Vec<f32>, f32, f32)> {
    let mut buffer = backend.upload_floats(x).unwrap();
    let mut moments = backend.alloc_floats(2).unwrap();
    backend.normalize(op, &mut buffer, &mut moments)?;
    let read = backend.read_floats(&moments, 0, 2)?;
    Ok((backend.read_floats(&buffer, 0, x.len())?, read[0], read[1]))
}

fn explained_variance<B: NormalizeOps>(backend: &mut B, values: &[f32], returns: &[f32]) -> Result<f32> {
    let [values, returns_buffer] = [values, returns].map(|data| backend.upload_floats(data).unwrap());
    let mut stats = backend.upload_floats(&[7.0; 2 * stat::COLUMNS]).unwrap();
    backend.explained_variance(returns.len(), &values, &returns_buffer, &mut stats, 1)?;
    let stats = backend.read_floats(&stats, 0, 2 * stat::COLUMNS)?;
    let index = stat::COLUMNS + stat::EXPLAINED_VARIANCE;
    assert!(stats.iter().enumerate().all(|(i, &s)| i == index || s == 7.0), "{stats:?}");
    Ok(stats[index])
}

#[track_caller]
fn assert_close(actual: f32, expected: f64, tolerance: f64) {
    assert!((f64::from(actual) - expected).abs() <= tolerance, "{actual} instead of {expected}");
}

fn gives_mean_zero_and_standard_deviation_one<B: NormalizeOps>(backend: &mut B) {
    for (ddof, std) in [(0, 2.0), (1, (32.0f64 / 7.0).sqrt())] {
        let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let (normalized, mean, found) = normalize(backend, &Normalize { ddof, ..torch(8) }, &x).unwrap();
        assert_close(mean, 5.0, 1e-6);
        assert_close(found, std, 1e-6);
        for (x, normalized) in x.into_iter().zip(normalized) {
            assert_close(normalized, (f64::from(x) - 5.0) / std, 1e-6);
        }
    }
}

fn divides_by_what_each_mode_says<B: NormalizeOps>(backend: &mut B) {
    // Mean 1, standard deviation 3.
    for (epsilon_mode, epsilon, denominator) in [
        (EpsilonMode::AddToStd, 1.0, 4.0),
        (EpsilonMode::AddToVariance, 4.0, 5.0),
        (EpsilonMode::Max, 2.0, 3.0),
        (EpsilonMode::Max, 6.0, 6.0),
        (EpsilonMode::AddToStd, 0.0, 3.0),
        (EpsilonMode::AddToVariance, 0.0, 3.0),
        (EpsilonMode::Max, 0.0, 3.0),
    ] {
        let op = Normalize { ddof: 0, epsilon, epsilon_mode, ..torch(2) };
        let (normalized, mean, std) = normalize(backend, &op, &[-2.0, 4.0]).unwrap();
        assert_close(mean, 1.0, 1e-6);
        assert_close(std, 3.0, 1e-6);
        assert_close(normalized[0], -3.0 / denominator, 1e-6);
        assert_close(normalized[1], 3.0 / denominator, 1e-6);
    }
}

fn a_mean_of_a_thousand_costs_no_accuracy<B: NormalizeOps>(backend: &mut B) {
    for len in [257, 20_000] {
        let x: Vec<f32> = Draw::new(1).floats(len, 1.0).iter().map(|x| 1000.0 + x).collect();
        let n = len as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let (normalized, found_mean, found_std) = normalize(backend, &torch(len), &x).unwrap();
        assert_close(found_mean, mean, 1e-4);
        assert_close(found_std, std, 1e-6);
        for (x, normalized) in x.into_iter().zip(normalized) {
            assert_close(normalized, (f64::from(x) - mean) / std, 4e-6);
        }
    }
}

fn an_outlier_in_front_costs_no_more_than_its_own_size<B: NormalizeOps>(backend: &mut B) {
    let mut x = Draw::new(2).floats(10_000, 1.0);
    x[0] = 1e6;
    let (_, mean, std) = normalize(backend, &torch(10_000), &x).unwrap();
    assert_close(mean, 100.0, 0.1);
    // Of the outlier alone: 1e6 · √((n − 1)/n / (n − 1)) = 1e6/√n.
    assert_close(std, 1e4, 0.1);
}

fn constants_become_zero<B: NormalizeOps>(backend: &mut B) {
    for constant in [0.0, 3.1, -1e-3, 1e6] {
        for len in [2, 33, 10_000] {
            for epsilon_mode in MODES {
                for epsilon in [1e-8, 0.0] {
                    let op = Normalize { epsilon, epsilon_mode, ..torch(len) };
                    let (normalized, mean, std) = normalize(backend, &op, &vec![constant; len]).unwrap();
                    assert_eq!((mean, std), (constant, 0.0), "{op:?}");
                    assert!(normalized.iter().all(|&x| x == 0.0), "{constant}, {op:?}");
                }
            }
        }
    }
}

fn one_value_stays_with_ddof_one_and_becomes_zero_without<B: NormalizeOps>(backend: &mut B) {
    assert_eq!(normalize(backend, &torch(1), &[4.5]).unwrap(), (vec![4.5], 4.5, 0.0));
    assert_eq!(normalize(backend, &Normalize { ddof: 0, ..torch(1) }, &[4.5]).unwrap(), (vec![0.0], 4.5, 0.0));
}

fn touches_its_column_only<B: NormalizeOps>(backend: &mut B) {
    for len in [3, 5000] {
        let x = Draw::new(3).floats(4 * len + 2, 1.0);
        let op = Normalize { offset: 1, stride: 4, ..torch(len) };
        let column: Vec<f32> = x.iter().skip(1).step_by(4).take(len).copied().collect();
        let (alone, ..) = normalize(backend, &torch(len), &column).unwrap();
        let mut expected = x.clone();
        expected.iter_mut().skip(1).step_by(4).zip(alone).for_each(|(x, y)| *x = y);
        assert!(normalize(backend, &op, &x).unwrap().0 == expected);
    }
}

fn vectors_have_moments_of_their_own<B: NormalizeOps>(backend: &mut B) {
    for (len, vectors) in [(1, 3), (3, 5), (5000, 3), (9000, 2)] {
        let rising = |(i, x): (usize, f32)| x * (1 + i / len) as f32 + (i / len) as f32;
        let x: Vec<f32> = Draw::new(4).floats(len * vectors, 1.0).into_iter().enumerate().map(rising).collect();
        // A column of the second of three, behind four other numbers.
        let mut rows = vec![9.0; 4 + 3 * len * vectors];
        rows.iter_mut().skip(4).step_by(3).zip(&x).for_each(|(row, &x)| *row = x);
        let mut buffer = backend.upload_floats(&rows).unwrap();
        let mut moments = backend.alloc_floats(2 * vectors).unwrap();
        backend.normalize(&Normalize { vectors, offset: 4, stride: 3, ..torch(len) }, &mut buffer, &mut moments).unwrap();
        let moments = backend.read_floats(&moments, 0, 2 * vectors).unwrap();
        for (k, vector) in x.chunks(len).enumerate() {
            let (alone, mean, std) = normalize(backend, &torch(len), vector).unwrap();
            assert_eq!(moments[2 * k..2 * k + 2], [mean, std], "vector {k} of {len}");
            rows[4 + 3 * len * k..].iter_mut().step_by(3).zip(alone).for_each(|(row, x)| *row = x);
        }
        assert!(backend.read_floats(&buffer, 0, rows.len()).unwrap() == rows, "{vectors} of {len}");
    }
}

/// Mean and standard deviation (ddof 1) in double precision.
fn exact_moments(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    (mean, (x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

fn seventy_thousand_groups_have_moments_of_their_own<B: NormalizeOps>(backend: &mut B) {
    let (len, vectors) = (3, 70_000);
    let x: Vec<f32> = Draw::new(12).floats(len * vectors, 1.0);
    let (mut buffer, mut moments) = (backend.upload_floats(&x).unwrap(), backend.alloc_floats(2 * vectors).unwrap());
    backend.normalize(&Normalize { vectors, ..torch(len) }, &mut buffer, &mut moments).unwrap();
    let normalized = backend.read_floats(&buffer, 0, x.len()).unwrap();
    let moments = backend.read_floats(&moments, 0, 2 * vectors).unwrap();
    for (k, (vector, normalized)) in x.chunks(len).zip(normalized.chunks(len)).enumerate() {
        let (mean, std) = exact_moments(vector);
        assert_close(moments[2 * k], mean, 1e-6);
        assert_close(moments[2 * k + 1], std, 1e-6);
        vector.iter().zip(normalized).for_each(|(&x, &found)| assert_close(found, (f64::from(x) - mean) / std, 1e-4));
    }
}

/// Against the formula in double precision; the largest error of a moment relative to the standard deviation.
fn assert_normalised<B: NormalizeOps>(backend: &mut B, op: &Normalize, x: &[f32]) {
    let (mean, std) = exact_moments(x);
    let (normalized, found_mean, found_std) = normalize(backend, op, x).unwrap();
    assert_close(found_mean, mean, 2e-6 * (std + mean.abs()));
    assert_close(found_std, std, 2e-6 * std);
    let denominator = match op.epsilon_mode {
        EpsilonMode::AddToStd => std + op.epsilon,
        EpsilonMode::AddToVariance => std.hypot(op.epsilon),
        EpsilonMode::Max => std.max(op.epsilon),
    };
    for (&x, &found) in x.iter().zip(&normalized) {
        let expected = (f64::from(x) - mean) / denominator;
        assert_close(found, expected, 4e-6 * (1.0 + expected.abs()) * std / denominator + 1e-37);
    }
}

fn a_spread_of_any_size_is_normalised<B: NormalizeOps>(backend: &mut B) {
    for len in [3, 300, 20_000] {
        let unit = Draw::new(13).floats(len, 1.0);
        // From where numbers are hardly below the smallest normal one, by those where squares vanish and overflow, to the largest.
        for size in [1e-32, 1e-30, 1e-20, 1e-18, 1e18, 1e19, 3e19, 1e25, 4e37] {
            let x: Vec<f32> = unit.iter().map(|x| x * size).collect();
            assert_normalised(backend, &Normalize { epsilon: 0.0, ..torch(len) }, &x);
        }
    }
    // Further apart than the largest number.
    let mut x = vec![3.4e38; 300];
    x[..150].fill(-3.4e38);
    let (normalized, mean, std) = normalize(backend, &Normalize { ddof: 0, ..torch(300) }, &x).unwrap();
    assert_close(mean, 0.0, 1e32);
    assert_close(std, 3.4e38, 1e33);
    assert!(normalized.iter().enumerate().all(|(i, x)| (x - if i < 150 { -1.0 } else { 1.0 }).abs() < 1e-5));
}

fn chunks_of_any_size_are_joined<B: NormalizeOps>(backend: &mut B) {
    let len = 20_000;
    let unit = Draw::new(14).floats(len, 1.0);
    // Chunks are of 4096 elements: each of another size, the largest first, last and in between.
    for sizes in [[1e30, 1e-30, 1.0, 1e10, 1e20], [1e-30, 1.0, 3e29, 1e30, 1e-10], [1e-36, 1e-10, 1e5, 1e20, 2e37]] {
        let x: Vec<f32> = unit.iter().enumerate().map(|(i, x)| x * sizes[i / 4096]).collect();
        assert_normalised(backend, &Normalize { epsilon: 0.0, ..torch(len) }, &x);
    }
}

fn an_epsilon_counts_at_any_size<B: NormalizeOps>(backend: &mut B) {
    for len in [3, 9000] {
        let unit = Draw::new(15).floats(len, 1.0);
        for (size, epsilon) in [(1e-8, 1e-8), (1e-30, 1e-30), (1e-30, 1e-8), (1e20, 1e20), (1e30, 1e10), (1e-32, 1.0)] {
            for epsilon_mode in MODES {
                let x: Vec<f32> = unit.iter().map(|x| x * size).collect();
                let op = Normalize { epsilon: f64::from(epsilon as f32), epsilon_mode, ..torch(len) };
                assert_normalised(backend, &op, &x);
            }
        }
    }
}

fn explains_variances_of_any_size<B: NormalizeOps>(backend: &mut B) {
    for len in [4, 1000, 20_000] {
        let mut draw = Draw::new(16);
        let (returns, errors) = (draw.floats(len, 1.0), draw.floats(len, 0.5));
        let values: Vec<f32> = returns.iter().zip(&errors).map(|(r, e)| r - e).collect();
        let exact = f64::from(explained_variance(&mut Cpu::<f64>::new(), &values, &returns).unwrap());
        for size in [1e-32, 1e-30, 1e-19, 1.0, 2e19, 1e30, 5e37] {
            let [values, returns] = [&values, &returns].map(|x| x.iter().map(|x| x * size).collect::<Vec<f32>>());
            assert_close(explained_variance(backend, &values, &returns).unwrap(), exact, 5e-6);
        }
        // Next to returns that are far larger, or smaller, values explain nothing; the latter beyond f32.
        let large: Vec<f32> = returns.iter().map(|r| r * 1e30).collect();
        assert_close(explained_variance(backend, &values, &large).unwrap(), 0.0, 5e-6);
        assert_eq!(explained_variance(backend, &large, &returns).unwrap(), f32::NEG_INFINITY);
        // A constant is no variance, however large.
        assert_close(explained_variance(backend, &vec![1e30; len], &returns).unwrap(), 1.0, 1e-6);
    }
}

fn explains_known_variances<B: NormalizeOps>(backend: &mut B) {
    let returns = [1.0, 2.0, 3.0, 4.0];
    for (values, expected) in [
        (returns, 1.0),
        // A constant offset is no variance.
        ([11.0, 12.0, 13.0, 14.0], 1.0),
        ([0.5; 4], 0.0),
        ([-1.0, -2.0, -3.0, -4.0], -3.0),
        ([0.5, 1.0, 1.5, 2.0], 0.75),
    ] {
        assert_close(explained_variance(backend, &values, &returns).unwrap(), expected, 1e-6);
    }
}

fn explained_variance_survives_a_mean_of_a_thousand<B: NormalizeOps>(backend: &mut B) {
    for len in [1000, 20_000] {
        let mut draw = Draw::new(4);
        let values: Vec<f32> = draw.floats(len, 1.0).iter().map(|x| 1000.0 + x).collect();
        let returns: Vec<f32> = values.iter().zip(draw.floats(len, 1.0)).map(|(v, e)| v + e).collect();
        let exact = explained_variance(&mut Cpu::<f64>::new(), &values, &returns).unwrap();
        assert!((0.4..0.6).contains(&exact), "{exact}");
        assert_close(explained_variance(backend, &values, &returns).unwrap(), f64::from(exact), 5e-6);
    }
}

fn explained_variance_of_constant_returns_is_nan<B: NormalizeOps>(backend: &mut B) {
    for len in [1, 2, 300, 10_000] {
        assert!(explained_variance(backend, &Draw::new(5).floats(len, 1.0), &vec![0.1; len]).unwrap().is_nan());
    }
}

#[test]
fn agrees_with_its_twin_on_awkward_vectors() {
    let Some(mut both) = checked() else { return };
    let mut draw = Draw::new(7);
    for variant in VARIANTS {
        both.a.variant = variant;
        for len in [2, 300, 20_000] {
            let sorted: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let nearly_constant: Vec<f32> = (0..len).map(|i| if i == len / 2 { 1.000_000_1 } else { 1.0 }).collect();
            let two_clusters: Vec<f32> = (0..len).map(|i| if 2 * i < len { -1e4 } else { 1e4 } + i as f32 * 1e-3).collect();
            let mut outlier = draw.floats(len, 1.0);
            outlier[0] = -1e7;
            for x in [sorted, nearly_constant, two_clusters, outlier, draw.floats(len, 1e-12), draw.floats(len, 1e12)] {
                for epsilon_mode in MODES {
                    normalize(&mut both, &Normalize { epsilon_mode, ..torch(len) }, &x).unwrap();
                }
                explained_variance(&mut both, &draw.floats(len, 1.0), &x).unwrap();
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    for variant in VARIANTS {
        on_gpu(variant, |gpu| {
            let x = Draw::new(8).floats(50_000, 1.0);
            let (first, second) = (normalize(gpu, &torch(50_000), &x).unwrap(), normalize(gpu, &torch(50_000), &x).unwrap());
            assert!(first == second);
            let explained = [(); 2].map(|()| explained_variance(gpu, &first.0, &x).unwrap().to_bits());
            assert_eq!(explained[0], explained[1]);
        });
    }
    let x = Draw::new(8).floats(50_000, 1.0);
    let mut cpu = Cpu::<f32>::new();
    assert!(normalize(&mut cpu, &torch(50_000), &x).unwrap() == normalize(&mut cpu, &torch(50_000), &x).unwrap());
}

/// The textbook formula that this kernel must not be, E[x²] − E[x]², is a planted fault as well.
#[test]
fn wrong_kernels_are_caught() {
    let source = include_str!("../shaders/normalize.wgsl");
    for (variant, operation, tensor, from, to) in [
        (Variant::Fast, "normalize", "moments", "f32(params.len - params.ddof)", "f32(params.len)"),
        (
            Variant::Fast,
            "normalize",
            "moments",
            "halves(scaled(x[at(start + i)], 1 - exponent)) - centre_halves",
            "halves(scaled(x[at(start + i)], 1 - exponent))",
        ),
        (Variant::Fast, "normalize", "moments", "reach > 0u; reach /= 2u", "reach > 1u; reach /= 2u"),
        (Variant::Fast, "normalize", "x", "var denominator = deviation + epsilon;", "var denominator = deviation;"),
        (Variant::Plain, "normalize", "moments", "+ off * off * f32(count_of(chunk))", ""),
        (Variant::Plain, "normalize", "moments", "f32(count_of(chunk)) / f32(params.len)", "1.0 / f32(params.chunks)"),
        (Variant::Plain, "normalize", "x", "pivot_halves, all.mean.x, factor", "pivot_halves, 0.0, factor"),
        (
            Variant::Fast,
            "explained_variance",
            "stats",
            "scaled(returns[i], n.x) - scaled(values[i], n.x)",
            "scaled(values[i], n.x)",
        ),
        (Variant::Fast, "explained_variance", "stats", "scaled(returns[i], n.y)", "scaled(values[i], n.y)"),
        (Variant::Plain, "explained_variance", "stats", "bitcast<u32>(1.0 - unexplained)", "bitcast<u32>(unexplained)"),
    ] {
        let Some(mut both) = checked() else { return };
        both.a.variant = variant;
        both.a.context.replace_shader("normalize", plant(source, from, to));
        let mut draw = Draw::new(9);
        let len = if variant == Variant::Plain { 5000 } else { 300 };
        // Rising, so that chunks have different means.
        let x: Vec<f32> = draw.floats(len, 1.0).iter().enumerate().map(|(i, x)| 30.0 + x + i as f32 * 1e-3).collect();
        let op = Normalize { epsilon: 1e-2, ..torch(len) };
        let result = match operation {
            "normalize" => normalize(&mut both, &op, &x).map(drop),
            _ => explained_variance(&mut both, &draw.floats(len, 1.0), &x).map(drop),
        };
        match result {
            Err(Error::Mismatch(mismatch)) => assert_eq!((mismatch.operation, mismatch.tensor), (operation, tensor), "{to}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn a_nan_where_there_is_variance_is_caught() {
    let Some(mut both) = checked() else { return };
    let wrong = plant(include_str!("../shaders/normalize.wgsl"), "squares.y > 0.0", "squares.y > 1e9");
    both.a.context.replace_shader("normalize", wrong);
    let mismatch = expect_mismatch(explained_variance(&mut both, &[0.0; 3], &[1.0, 2.0, 4.0]).map(drop));
    assert_eq!((mismatch.operation, mismatch.tensor), ("explained_variance", "stats"));
    assert!(mismatch.value.is_nan());
}

#[test]
fn a_vector_in_place_of_another_is_caught() {
    let x = Draw::new(5).floats(10_000, 1.0);
    for (variant, len) in [(Variant::Fast, 5), (Variant::Plain, 5000)] {
        let Some(mut both) = checked() else { return };
        both.a.variant = variant;
        let from = match variant {
            Variant::Plain => "vector = index / params.chunks;",
            _ => "vector = workgroup.y * groups.x + workgroup.x;",
        };
        let wrong = plant(include_str!("../shaders/normalize.wgsl"), from, "vector = 0u;");
        both.a.context.replace_shader("normalize", wrong);
        let (mut x, mut moments) = (both.upload_floats(&x).unwrap(), both.upload_floats(&[7.0; 4]).unwrap());
        let op = Normalize { vectors: 2, ..torch(len) };
        let mismatch = expect_mismatch(both.normalize(&op, &mut x, &mut moments));
        assert_eq!(mismatch.operation, "normalize", "{variant:?}");
    }
}

#[test]
fn a_write_to_a_neighbouring_column_is_caught() {
    let Some(mut both) = checked() else { return };
    let (from, to) = ("x[at(start + i)] = scaled", "x[at(start + i) + 1u] = 0.0; x[at(start + i)] = scaled");
    both.a.context.replace_shader("normalize", plant(include_str!("../shaders/normalize.wgsl"), from, to));
    let op = Normalize { stride: 2, ..torch(3) };
    let mismatch = expect_mismatch(normalize(&mut both, &op, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).map(drop));
    assert_eq!((mismatch.tensor, mismatch.element), ("x", 1));
}

#[test]
fn tolerances_are_a_few_roundings_of_a_standard_deviation() {
    let mut both = CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new());
    let x = Draw::new(10).floats(10_000, 1.0);
    normalize(&mut both, &torch(10_000), &x).unwrap();
    explained_variance(&mut both, &Draw::new(11).floats(10_000, 1.0), &x).unwrap();
    for (tensor, worst) in both.worst() {
        assert!(worst.error > 0.0 && worst.allowed < 2e-4, "{tensor:?}: {worst:?}");
    }
}

#[test]
fn names_the_argument_that_does_not_fit() {
    fn check<B: NormalizeOps>(backend: &mut B) {
        let expect = |result: Result<()>, argument: &str| match result {
            Err(Error::Shape { argument: named, .. } | Error::InvalidValue { argument: named, .. }) => {
                assert_eq!(named, argument)
            }
            other => panic!("{argument}: {other:?}"),
        };
        let fits = Normalize { offset: 1, stride: 3, ..torch(4) };
        for (op, x, moments, argument) in [
            (fits, 10, 2, "x"),
            (fits, 11, 1, "moments"),
            (Normalize { len: 0, ..fits }, 11, 2, "len"),
            (Normalize { vectors: 0, ..fits }, 11, 2, "vectors"),
            (Normalize { vectors: 2, ..fits }, 22, 4, "x"),
            (Normalize { vectors: 2, ..fits }, 23, 3, "moments"),
            (Normalize { stride: 0, ..fits }, 11, 2, "stride"),
            (Normalize { ddof: 2, ..fits }, 11, 2, "ddof"),
            (Normalize { epsilon: -1e-8, ..fits }, 11, 2, "epsilon"),
            (Normalize { epsilon: f64::NAN, ..fits }, 11, 2, "epsilon"),
            (Normalize { epsilon: f64::INFINITY, ..fits }, 11, 2, "epsilon"),
            (Normalize { offset: usize::MAX, ..fits }, 11, 2, "x"),
            (Normalize { stride: 1 << 31, ..fits }, 11, 2, "x"),
        ] {
            let [mut x, mut moments] = [x, moments].map(|len| backend.alloc_floats(len).unwrap());
            expect(backend.normalize(&op, &mut x, &mut moments), argument);
        }
        let [mut x, mut moments] = [11, 2].map(|len| backend.alloc_floats(len).unwrap());
        backend.normalize(&fits, &mut x, &mut moments).unwrap();
        for (len, values, returns, stats, row, argument) in [
            (0, 3, 3, 16, 0, "len"),
            (3, 2, 3, 16, 0, "values"),
            (3, 3, 2, 16, 0, "returns"),
            (3, 3, 3, 16, 1, "stats"),
            (3, 3, 3, 16, usize::MAX, "stats_row"),
        ] {
            let [values, returns, mut stats] = [values, returns, stats].map(|len| backend.alloc_floats(len).unwrap());
            expect(backend.explained_variance(len, &values, &returns, &mut stats, row), argument);
        }
    }
    check(&mut Cpu::<f32>::new());
    check(&mut CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new()));
    on_gpu(Variant::Auto, check);
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn a_shift_and_a_positive_factor_change_nothing(
        seed in 0u64..1 << 32,
        len in 2usize..200,
        shift in -100f32..100.0,
        factor in 0.1f32..100.0,
    ) {
        let mut cpu = Cpu::<f64>::new();
        let op = Normalize { epsilon: 0.0, ..torch(len) };
        let x = Draw::new(seed).floats(len, 1.0);
        let moved: Vec<f32> = x.iter().map(|x| shift + factor * x).collect();
        let (plain, moved) = (normalize(&mut cpu, &op, &x).unwrap().0, normalize(&mut cpu, &op, &moved).unwrap().0);
        // Rounding of the moved values, up to 1e-5, against a standard deviation of at least about 0.1 / 100.
        let worst = plain.iter().zip(&moved).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prop_assert!(worst < 1e-2, "{worst}");
    }
}
