//! Candidates are timed once for an adapter, no choice changes a bit, and nothing about the files can go wrong.

mod common;

use std::path::{Path, PathBuf};

use common::{Draw, plant};
use ppo_kernels::backend::{Gpu, LinearOps, Memory, Variant};
use ppo_kernels::gpu::Autotune;
use ppo_kernels::kernels::linear::{Activation, ForwardOperands, Linear};
use ppo_kernels::wgpu;

/// Large enough to be worth timing, and of as many candidates for each of the three products as [`ways`] has.
const LAYER: Linear = Linear { batch: 65, in_features: IN, out_features: OUT, weight_offset: 0, bias_offset: IN * OUT };
const IN: usize = 63;
const OUT: usize = 33;

/// The candidates for one product of [`LAYER`].
fn ways(gpu: &Gpu) -> &'static [&'static str] {
    if gpu.context.is_software() { &["plain", "registers"] } else { &["plain", "registers", "workgroup-64"] }
}

/// Products of which the candidates have been timed, all of them.
#[track_caller]
fn products_timed(gpu: &Gpu) -> usize {
    let (timed, each) = (gpu.context.candidates_timed() as usize, ways(gpu).len());
    assert_eq!(timed % each, 0, "{timed} candidates, {each} for each product");
    timed / each
}

/// A context that tunes, as a release build's does.
fn tuning(autotune: Autotune) -> Option<Gpu> {
    let mut gpu = common::gpu()?;
    gpu.context.set_bounds_checks(false);
    gpu.context.set_autotune(autotune);
    Some(gpu)
}

fn kept_in(folder: &Path) -> Option<Gpu> {
    tuning(Autotune::OnDisk(folder.to_owned()))
}

/// All three products of a layer; the bits of their results.
fn run_layer(gpu: &mut Gpu, layer: &Linear) -> Vec<u64> {
    let Linear { batch, in_features, out_features, .. } = *layer;
    let mut draw = Draw::new(11);
    let x = gpu.upload_floats(&draw.floats(batch * in_features, 1.0)).unwrap();
    let params = gpu.upload_floats(&draw.floats(layer.weights() + out_features, 1.0)).unwrap();
    let mut y = gpu.alloc_floats(batch * out_features).unwrap();
    let mut d_x = gpu.alloc_floats(batch * in_features).unwrap();
    let mut grads = gpu.alloc_floats(layer.weights() + out_features).unwrap();
    gpu.linear_forward(
        layer,
        Activation::Tanh,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )
    .unwrap();
    gpu.linear_backward_input(layer, &y, &params, Some((Activation::Tanh, &x)), &mut d_x).unwrap();
    gpu.linear_backward_params(layer, &y, &x, &mut grads).unwrap();
    let results = [(&y, batch * out_features), (&d_x, batch * in_features), (&grads, layer.weights() + out_features)];
    results.into_iter().flat_map(|(buffer, len)| gpu.read_f64(buffer, 0, len).unwrap()).map(f64::to_bits).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[track_caller]
fn the_file(folder: &Path, extension: &str) -> PathBuf {
    let found = files(folder, extension);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(files(folder, "tmp").is_empty(), "a file was left beside");
    found[0].clone()
}

fn choices(folder: &Path) -> serde_json::Map<String, serde_json::Value> {
    let contents: serde_json::Value = serde_json::from_slice(&std::fs::read(the_file(folder, "json")).unwrap()).unwrap();
    contents["choices"].as_object().unwrap().clone()
}

#[test]
fn what_was_found_is_kept_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut first) = kept_in(folder.path()) else { return };
    let bits = run_layer(&mut first, &LAYER);
    assert_eq!(products_timed(&first), 3);
    run_layer(&mut first, &LAYER);
    assert_eq!(products_timed(&first), 3, "once is enough");
    let kept = choices(folder.path());
    let questions: Vec<_> = kept.keys().collect();
    assert_eq!(questions, ["linear_backward_input 128x64x64", "linear_backward_params 64x64x128", "linear_forward 128x64x64"]);

    let mut second = kept_in(folder.path()).unwrap();
    assert_eq!(run_layer(&mut second, &LAYER), bits);
    assert_eq!(products_timed(&second), 0);
    // The same power of two asks the same question, the next another.
    run_layer(&mut second, &Linear { batch: 128, ..LAYER });
    assert_eq!(products_timed(&second), 0);
    run_layer(&mut second, &Linear { batch: 129, ..LAYER });
    assert_eq!(products_timed(&second), 3);

    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = kept_in(elsewhere.path()).unwrap();
    run_layer(&mut other, &LAYER);
    assert_eq!(products_timed(&other), 3, "another folder knows nothing");
}

#[test]
fn no_choice_changes_a_bit() {
    let Some(mut off) = tuning(Autotune::Off) else { return };
    let folder = tempfile::tempdir().unwrap();
    // Two stretches of samples, so that the parameters' gradient has parts.
    let layer = Linear { batch: 2100, in_features: IN, out_features: 21, weight_offset: 0, bias_offset: IN * 21 };
    let bits = run_layer(&mut off, &layer);
    let mut found = kept_in(folder.path()).unwrap();
    assert_eq!(run_layer(&mut found, &layer), bits);
    assert_eq!(products_timed(&found), 3);
    let file = the_file(folder.path(), "json");
    let text = std::fs::read_to_string(&file).unwrap();
    for way in ways(&found) {
        let named = |text: String, name: &&str| text.replace(&format!("\"{name}\""), &format!("\"{way}\""));
        std::fs::write(&file, ways(&found).iter().fold(text.clone(), named)).unwrap();
        let mut forced = kept_in(folder.path()).unwrap();
        assert_eq!(run_layer(&mut forced, &layer), bits, "{way}");
        assert_eq!(products_timed(&forced), 0, "{way} was read");
    }
    let mut other_numbers = tuning(Autotune::Off).unwrap();
    assert_ne!(
        run_layer(&mut other_numbers, &Linear { weight_offset: 21, bias_offset: 0, ..layer }),
        bits,
        "the comparison sees a difference"
    );
}

#[test]
fn a_damaged_file_is_ignored_and_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut gpu) = kept_in(folder.path()) else { return };
    run_layer(&mut gpu, &LAYER);
    let file = the_file(folder.path(), "json");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept = choices(folder.path());
    let some_choice = kept["linear_forward 128x64x64"].to_string();
    let version = format!("\"ppo_kernels\": \"{}\"", env!("CARGO_PKG_VERSION"));
    for (damage, timed) in [
        (text.clone(), 0),
        (String::new(), 3),
        ("\u{0}\u{1}garbage".to_owned(), 3),
        (text[..text.len() / 2].to_owned(), 3),
        ("[]".to_owned(), 3),
        (plant(&text, &some_choice, "7"), 3),
        (plant(&text, &version, "\"ppo_kernels\": \"0.0.0\""), 3),
        (plant(&text, "\"driver_info\": \"", "\"driver_info\": \"another "), 3),
        // Whole files, of which a part is of no use.
        (plant(&text, &format!("\"linear_forward 128x64x64\": {some_choice}"), "\"linear_forward 128x64x64\": \"magic\""), 1),
        (plant(&text, "\"linear_forward 128x64x64\"", "\"linear_forward\""), 1),
    ] {
        std::fs::write(&file, &damage).unwrap();
        let mut gpu = kept_in(folder.path()).unwrap();
        run_layer(&mut gpu, &LAYER);
        assert_eq!(products_timed(&gpu), timed, "{damage}");
        let rewritten = choices(folder.path());
        assert!(kept.keys().all(|question| ways(&gpu).contains(&rewritten[question].as_str().unwrap())), "{damage}");
    }
    // Bytes that are no text.
    std::fs::write(&file, [0xff; 100]).unwrap();
    let mut gpu = kept_in(folder.path()).unwrap();
    run_layer(&mut gpu, &LAYER);
    assert_eq!(products_timed(&gpu), 3);
    assert_eq!(choices(folder.path()).len(), 3);
}

#[test]
fn two_processes_keep_each_others_choices() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut first) = kept_in(folder.path()) else { return };
    run_layer(&mut first, &LAYER);
    let mut second = kept_in(folder.path()).unwrap();
    run_layer(&mut second, &Linear { batch: 129, ..LAYER });
    run_layer(&mut first, &Linear { batch: 257, ..LAYER });
    run_layer(&mut second, &Linear { batch: 513, ..LAYER });
    assert_eq!(choices(folder.path()).len(), 12);
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for autotune in [Autotune::OnDisk(file.join("below a file")), Autotune::OnDisk(file.clone()), Autotune::InMemory] {
        let Some(mut gpu) = tuning(autotune) else { return };
        run_layer(&mut gpu, &LAYER);
        run_layer(&mut gpu, &LAYER);
        assert_eq!(products_timed(&gpu), 3, "choices last as long as the context");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn where_faults_are_looked_for_nothing_is_timed_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let prepare: [fn(&mut Gpu); 7] = [
        |gpu| gpu.context.set_autotune(Autotune::Off),
        |gpu| gpu.context.set_bounds_checks(true),
        |gpu| gpu.context.set_guards(true),
        |gpu| gpu.context.replace_shader("linear", common::shader("linear").to_owned()),
        |gpu| gpu.variant = Variant::Plain,
        |gpu| gpu.variant = Variant::Fast,
        |_| (),
    ];
    for (i, prepare) in prepare.iter().enumerate() {
        let Some(mut gpu) = kept_in(folder.path()) else { return };
        prepare(&mut gpu);
        run_layer(&mut gpu, &LAYER);
        assert_eq!(products_timed(&gpu), if i == 6 { 3 } else { 0 }, "{i}");
        drop(gpu);
        assert_eq!(files(folder.path(), "json").len(), usize::from(i == 6), "{i}");
        assert!(i >= 4 || files(folder.path(), "pipelines").is_empty(), "{i}");
    }
}

#[test]
fn timing_candidates_leaves_alone_what_is_recorded() {
    let Some(mut gpu) = tuning(Autotune::InMemory) else { return };
    gpu.context.set_timing(true);
    let layer = Linear { batch: 70, ..LAYER };
    let mut x = gpu.upload_floats(&[0.0; 70 * IN]).unwrap();
    let params = gpu.upload_floats(&[1.0; (IN + 1) * OUT]).unwrap();
    let mut y = gpu.alloc_floats(70 * OUT).unwrap();
    let mut again = gpu.alloc_floats(70 * OUT).unwrap();
    let ones = gpu.upload_floats(&[1.0; 70 * IN]).unwrap();
    gpu.copy_floats(&ones, 0, &mut x, 0, 70 * IN).unwrap();
    gpu.linear_forward(
        &layer,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )
    .unwrap();
    gpu.write_floats(&mut x, 0, &[2.0; 70 * IN]).unwrap();
    assert_eq!((products_timed(&gpu), gpu.context.submissions()), (1, 0), "timed, with everything still recorded");
    gpu.linear_forward(
        &layer,
        Activation::Relu,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut again, y_offset: 0 },
    )
    .unwrap();
    assert_eq!(gpu.read_floats(&y, 0, 70 * OUT).unwrap(), [(IN + 1) as f32; 70 * OUT]);
    assert_eq!(gpu.read_floats(&again, 0, 70 * OUT).unwrap(), [(2 * IN + 1) as f32; 70 * OUT]);
    assert_eq!(gpu.context.submissions(), 2);
    gpu.context.take_gpu_seconds().unwrap();
    assert_eq!(products_timed(&gpu), 1, "an activation is no other question");
}

#[test]
fn works_on_a_callers_device_without_submitting_what_the_caller_encodes() {
    if common::gpu().is_none() {
        return;
    }
    let (device, queue) = common::callers_device(wgpu::Limits::default());
    let folder = tempfile::tempdir().unwrap();
    let mut ours = Gpu::on(ppo_kernels::gpu::Context::from_wgpu(device.clone(), queue.clone(), "mine".to_owned()));
    ours.context.set_bounds_checks(false);
    ours.context.set_autotune(Autotune::OnDisk(folder.path().to_owned()));
    let (x, params) = (ours.upload_floats(&[1.0; 65 * IN]).unwrap(), ours.upload_floats(&[1.0; (IN + 1) * OUT]).unwrap());
    let mut y = ours.alloc_floats(65 * OUT).unwrap();
    ours.linear_forward(
        &LAYER,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )
    .unwrap();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    ours.context.encode_into(&mut encoder);
    assert_eq!(ours.read_floats(&y, 0, 65 * OUT).unwrap(), [0.0; 65 * OUT], "not submitted yet");
    queue.submit([encoder.finish()]);
    assert_eq!(ours.read_floats(&y, 0, 65 * OUT).unwrap(), [(IN + 1) as f32; 65 * OUT]);
    assert_eq!(products_timed(&ours), 1);
    assert_eq!(choices(folder.path()).len(), 1);
    drop(ours);
    assert!(files(folder.path(), "pipelines").is_empty(), "the caller did not ask for the feature");
}

/// Runs with the pipelines kept in the folder, the plain ones, whose number does not depend on what is timed; then what the folder keeps.
fn kept_after(folder: &Path, run: impl Fn(&mut Gpu)) -> Option<Vec<u8>> {
    let mut gpu = kept_in(folder)?;
    gpu.variant = Variant::Plain;
    run(&mut gpu);
    drop(gpu);
    if files(folder, "pipelines").is_empty() {
        return None;
    }
    Some(std::fs::read(the_file(folder, "pipelines")).unwrap())
}

fn forward(gpu: &mut Gpu) {
    let (x, params) = (gpu.upload_floats(&[1.0; 65 * IN]).unwrap(), gpu.upload_floats(&[1.0; (IN + 1) * OUT]).unwrap());
    let mut y = gpu.alloc_floats(65 * OUT).unwrap();
    gpu.linear_forward(
        &LAYER,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )
    .unwrap();
    assert_eq!(gpu.read_floats(&y, 0, 65 * OUT).unwrap(), [(IN + 1) as f32; 65 * OUT]);
}

fn backward(gpu: &mut Gpu) {
    let (d_pre, x) = (gpu.upload_floats(&[1.0; 65 * OUT]).unwrap(), gpu.upload_floats(&[1.0; 65 * IN]).unwrap());
    let mut grads = gpu.alloc_floats((IN + 1) * OUT).unwrap();
    gpu.linear_backward_params(&LAYER, &d_pre, &x, &mut grads).unwrap();
    assert_eq!(gpu.read_floats(&grads, 0, (IN + 1) * OUT).unwrap(), [65.0; (IN + 1) * OUT]);
}

#[test]
fn kept_pipelines_are_read_and_damaged_ones_written_anew() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(kept) = kept_after(folder.path(), forward) else {
        println!("not run: this adapter has no pipeline caches");
        return;
    };
    let file = the_file(folder.path(), "pipelines");
    // Long ago, so that whoever writes the file is noticed.
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let is_written_anew = |contents: &[u8]| {
        std::fs::write(&file, contents).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        assert!(kept_after(folder.path(), forward).unwrap().len() >= kept.len());
        std::fs::metadata(&file).unwrap().modified().unwrap() != long_ago
    };
    assert!(!is_written_anew(&kept), "it was read, and there was nothing to add");
    let flipped = |at: usize| {
        let mut bytes = kept.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (name, damage) in [
        ("empty", Vec::new()),
        ("shorter than a checksum", vec![7; 5]),
        ("truncated", kept[..kept.len() - 1].to_vec()),
        ("longer", [&kept[..], &[0]].concat()),
        ("checksum", flipped(0)),
        ("header", flipped(8)),
        ("data", flipped(kept.len() - 1)),
        ("garbage", b"garbage".repeat(100)),
        ("another driver's, with the right checksum", with_checksum(&flipped(8 + 8 + 4 + 4 + 1 + 15)[8..])),
        ("another program's, with the right checksum", with_checksum(b"garbage")),
    ] {
        assert!(is_written_anew(&damage), "{name}");
    }
    assert!(!is_written_anew(&with_checksum(&kept[8..])), "the checksum is the one that was written");
}

fn with_checksum(data: &[u8]) -> Vec<u8> {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, data);
    [&std::hash::Hasher::finish(&hasher).to_le_bytes()[..], data].concat()
}

#[test]
fn kept_pipelines_are_used_beside_new_ones() {
    if common::gpu().is_none() {
        return;
    }
    if !driver_keeps_pipelines() {
        println!("not run: this driver keeps no pipelines for programs");
        return;
    }
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let forward_alone = kept_after(folder.path(), forward).unwrap().len();
    let both = kept_after(folder.path(), backward).unwrap().len();
    let backward_alone = kept_after(elsewhere.path(), backward).unwrap().len();
    assert!(both > forward_alone && both > backward_alone, "{both} bytes, {forward_alone} and {backward_alone} alone");
}

/// Whether a pipeline that wgpu alone makes with a cache is in the cache afterwards. Some drivers have the feature and keep nothing.
#[allow(unsafe_code)]
fn driver_keeps_pipelines() -> bool {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let required_features = adapter.features() & wgpu::Features::PIPELINE_CACHE;
    if required_features.is_empty() {
        return false;
    }
    let (device, _queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor { required_features, ..Default::default() })).unwrap();
    let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: None, fallback: false };
    // SAFETY: there is no data.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    let empty = cache.get_data().unwrap().len();
    let text =
        "@group(0) @binding(0) var<storage, read_write> x: array<u32>; @compute @workgroup_size(1) fn main() { x[0] += 1u; }";
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let _pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: Some(&cache),
    });
    cache.get_data().unwrap().len() > empty
}
