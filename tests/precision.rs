//! Matrix products on tensor cores, asked for by name: what happens where there are none or wrong ones, and a whole update with them.

mod common;

use std::sync::{Mutex, OnceLock};

use common::{Draw, ON_TENSOR_CORES, checked_on_tensor_cores, gpu, gpu_on_tensor_cores, gpu_with, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, LinearOps, Memory, Precision, Variant};
use ppo_kernels::kernels::linear::{Activation, ForwardOperands, Linear};
use ppo_kernels::ppo::{Config, Ends, Learner, PolicyKind, Rollout, UpdateStats};

/// Keeps the warnings of the thread that asks.
struct Warnings;

static WARNINGS: Mutex<Vec<(std::thread::ThreadId, String)>> = Mutex::new(Vec::new());

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("ppo_kernels")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().unwrap().push((std::thread::current().id(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// What was warned of while `work` ran.
fn warnings<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    static LOGGER: OnceLock<()> = OnceLock::new();
    LOGGER.get_or_init(|| {
        log::set_logger(&Warnings).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    let thread = std::thread::current().id();
    let mine = |(by, text): &(_, String)| (*by == thread).then(|| text.clone());
    let before = WARNINGS.lock().unwrap().iter().filter_map(mine).count();
    let result = work();
    let all: Vec<String> = WARNINGS.lock().unwrap().iter().filter_map(mine).collect();
    (result, all[before..].to_vec())
}

#[test]
fn a_request_is_met_or_one_warning_says_why_not() {
    for (precision, name) in ON_TENSOR_CORES.into_iter().zip(["f16 tensor cores", "f16x3 tensor cores"]) {
        let (gpu, warned) = warnings(|| gpu_with(precision));
        let Some(gpu) = gpu else { return };
        match gpu.context.cooperative_matrix() {
            Ok(matrix) => {
                assert!([8, 16].contains(&matrix.size), "{matrix:?}");
                assert_eq!((gpu.precision(), warned.len()), (precision, 0), "{warned:?}");
                assert!(gpu.describe().contains(name), "{}", gpu.describe());
            }
            Err(reason) => {
                assert_eq!((gpu.precision(), warned.len()), (Precision::F32, 1), "{warned:?}");
                assert!(warned[0].contains(reason) && warned[0].contains(gpu.context.name()), "{warned:?}");
                assert!(!gpu.describe().contains("f16"), "{}", gpu.describe());
            }
        }
    }
}

#[test]
fn nobody_gets_tensor_cores_without_asking() {
    let (gpu, warned) = warnings(gpu);
    let Some(gpu) = gpu else { return };
    assert_eq!((gpu.precision(), warned.len()), (Precision::F32, 0), "{warned:?}");
    let (gpu, warned) = warnings(|| gpu.with_precision(Precision::F16TensorCore));
    assert_eq!(gpu.precision(), Precision::F32);
    assert!(warned[0].contains("opened without tensor cores"), "{warned:?}");
}

#[test]
fn the_self_test_finds_wrong_tensor_cores() {
    for precision in ON_TENSOR_CORES {
        let Some((both, shader)) = checked_on_tensor_cores(precision) else { return };
        self_test_finds_faults(both.a, precision, shader);
    }
}

fn self_test_finds_faults(mut gpu: Gpu, precision: Precision, shader: &'static str) {
    let source = common::shader(shader);
    let of_a = |to: &str| {
        plant(source, "put_a(place_of(vector, A_ACROSS), next_a[i] * scale)", &format!("put_a(place_of(vector, A_ACROSS), {to})"))
    };
    // Matrices of the smaller and of the larger tile, vectors, and the range of operands: an adapter without subnormals, one that saturates.
    let mut faults = vec![
        (plant(source, "coopMultiplyAdd(a1, b_right,", "coopMultiplyAdd(a0, b_right,"), "they differ by"),
        (plant(source, "a_vectors[at.x / 4u]", "a_vectors[at.x / 4u].yxzw"), "they differ by"),
        (plant(source, "b_vectors[at.x / 4u]", "b_vectors[at.x / 4u].yxzw"), "they differ by"),
        (of_a("select(next_a[i] * scale, vec4<f32>(), abs(next_a[i] * scale) < vec4<f32>(6.1035e-5))"), "they differ by"),
        (of_a("clamp(next_a[i] * scale, vec4<f32>(-65504.0), vec4<f32>(65504.0))"), "a result that is not finite"),
        ("this is not WGSL".to_owned(), "the device reported"),
    ];
    if common::has_large_tiles(&gpu) {
        faults.push((plant(source, "coopMultiplyAdd(a3, b_left,", "coopMultiplyAdd(a2, b_left,"), "they differ by"));
    }
    if precision == Precision::F16x3TensorCore {
        faults.push((plant(source, "(operand - high) * LOW_SCALE", "vec4<f32>()"), "they differ by"));
        faults.push((plant(source, "coopMultiplyAdd(a1_low, b_right,", "coopMultiplyAdd(a0_low, b_right,"), "they differ by"));
    } else {
        // An adapter that truncates instead of rounding; with a second number for each operand that matters little.
        let truncated = plant(source, "vec4<f16>(operand)", "vec4<f16>(truncated(operand))")
            + "fn truncated(x: vec4<f32>) -> vec4<f32> { return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u)); }";
        faults.push((truncated, "they differ by"));
    }
    for (fault, message) in faults {
        gpu.context.replace_shader(shader, fault);
        let (back, warned) = warnings(|| gpu.with_precision(precision));
        assert_eq!((back.precision(), warned.len()), (Precision::F32, 1), "{message}: {warned:?}");
        assert!(warned[0].contains("failed a self-test") && warned[0].contains(message), "{message}: {warned:?}");
        gpu = back;
    }
    gpu.context.replace_shader(shader, source.to_owned());
    let (gpu, warned) = warnings(|| gpu.with_precision(precision));
    assert_eq!((gpu.precision(), warned.len()), (precision, 0), "{warned:?}");
}

/// Sizes are those of whole vectors of four, so that only where operands begin tells that they cannot be read by vectors.
#[test]
fn operands_that_begin_within_a_vector_are_read_as_they_lie() {
    for (mut both, _) in ON_TENSOR_CORES.into_iter().filter_map(checked_on_tensor_cores) {
        agrees_within_vectors(&mut both);
    }
}

fn agrees_within_vectors(both: &mut CrossCheck<Gpu, Cpu<f64>>) {
    let (batch, in_features, out_features) = (40, 20, 24);
    let mut draw = Draw::new(16);
    for (x_offset, weight_offset) in [(0, 4), (3, 4), (0, 1), (2, 7)] {
        let bias_offset = weight_offset + in_features * out_features;
        let layer = Linear { batch, in_features, out_features, weight_offset, bias_offset };
        let x = both.upload_floats(&draw.floats(x_offset + batch * in_features, 1.0)).unwrap();
        let params = both.upload_floats(&draw.floats(bias_offset + out_features, 1.0)).unwrap();
        let d_pre = both.upload_floats(&draw.floats(batch * out_features, 1.0)).unwrap();
        let mut y = both.alloc_floats(batch * out_features).unwrap();
        let mut d_x = both.alloc_floats(batch * in_features).unwrap();
        both.linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset, params: &params, pre: None, y: &mut y, y_offset: 0 },
        )
        .unwrap();
        both.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
    }
}

const OBSERVATION_SIZE: usize = 20;

/// Too wide for the fused kernel, with minibatches of 32.
fn wide() -> Config {
    Config { num_envs: 4, num_steps: 16, hidden: vec![256, 256], num_minibatches: 2, update_epochs: 2, ..Config::default() }
}

fn rollout(gpu: &mut Gpu, learner: &mut Learner<Gpu>, reward: f32) -> Rollout<Gpu> {
    let mut rollout = learner.new_rollout(gpu).unwrap();
    let (steps, envs) = (rollout.steps, rollout.envs);
    let mut draw = Draw::new(3);
    gpu.write_floats(&mut rollout.observations, 0, &draw.floats(steps * envs * OBSERVATION_SIZE, 1.0)).unwrap();
    gpu.write_floats(&mut rollout.rewards, 0, &draw.floats(steps * envs, reward)).unwrap();
    learner.draw_noise(gpu).unwrap();
    (0..steps).for_each(|step| learner.act(gpu, &mut rollout, step).unwrap());
    let Ends::BeforeStep { dones, next_value, next_done } = &mut rollout.ends else { panic!("not CleanRL's") };
    gpu.write_floats(dones, 0, &vec![0.0; steps * envs]).unwrap();
    gpu.write_floats(next_value, 0, &draw.floats(envs, 1.0)).unwrap();
    gpu.write_floats(next_done, 0, &vec![0.0; envs]).unwrap();
    rollout
}

/// Parameters before and after an update, and its statistics.
fn update(gpu: &mut Gpu, reward: f32) -> (Vec<f32>, Vec<f32>, ppo_kernels::Result<UpdateStats>) {
    gpu.variant = Variant::Auto;
    let policy = PolicyKind::Categorical { actions: 3 };
    let mut learner = Learner::new(gpu, OBSERVATION_SIZE, policy, wide()).unwrap();
    let rollout = rollout(gpu, &mut learner, reward);
    let before = learner.parameters(gpu).unwrap();
    gpu.take_used_precision();
    let stats = learner.update(gpu, &rollout, 1e-3);
    (before, learner.parameters(gpu).unwrap(), stats)
}

#[test]
fn an_update_stays_near_that_in_f32() {
    // Three products forward, each of two operands that are off by 2⁻¹¹, or 2⁻²². Adam makes steps of one size of gradients of any size: where those are
    // near zero, rounding may turn a step around.
    for (precision, of_loss, of_way) in [(Precision::F16TensorCore, 3.0 / 1024.0, 0.2), (Precision::F16x3TensorCore, 1e-5, 1e-3)]
    {
        let (Some(mut tensor_cores), Some(mut f32)) = (gpu_on_tensor_cores(precision), gpu()) else { return };
        let (start, expected, stats_f32) = update(&mut f32, 1.0);
        let (same_start, found, stats) = update(&mut tensor_cores, 1.0);
        assert_eq!((tensor_cores.take_used_precision(), f32.take_used_precision()), (precision, Precision::F32));
        assert_eq!(start, same_start);
        let (stats, stats_f32) = (stats.unwrap(), stats_f32.unwrap());
        let apart = (stats.loss - stats_f32.loss).abs() / stats_f32.loss.abs();
        assert!(apart < of_loss, "{precision:?}: losses {} and {}", stats.loss, stats_f32.loss);
        let norm = |pairs: &mut dyn Iterator<Item = (f32, f32)>| pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        let moved = norm(&mut expected.iter().copied().zip(start));
        let apart = norm(&mut expected.iter().copied().zip(found));
        assert!(apart > 0.0 && apart < of_way * moved, "{precision:?}: {apart:e} apart after a way of {moved:e}");
    }
}

#[test]
fn a_gradient_beyond_f16_is_reported_and_nothing_is_lost() {
    let Some(mut f32) = gpu() else { return };
    let (_, _, in_f32) = update(&mut f32, 1e8);
    in_f32.unwrap();
    for mut tensor_cores in ON_TENSOR_CORES.into_iter().filter_map(gpu_on_tensor_cores) {
        let (before, after, outcome) = update(&mut tensor_cores, 1e8);
        assert!(matches!(outcome, Err(Error::NonFinite { .. })), "{outcome:?}");
        assert_eq!(before, after);
    }
}
