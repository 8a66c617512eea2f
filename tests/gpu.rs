//! The device layer: order of writes, limits, guards, and working on a caller's own device.

mod common;

use common::gpu;
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, GatherOps, Gpu, Memory};
use ppo_kernels::bench::{Benchmarked, Clocks};
use ppo_kernels::gpu::{Buffer, Context, Selection, adapters};
use ppo_kernels::kernels::gather::Gather;
use ppo_kernels::wgpu;

const FIRST_TWO: Gather = Gather { rows: 2, width: 1, start: 0, count: 2 };

#[test]
fn a_write_does_not_overtake_what_is_already_recorded() {
    let Some(mut gpu) = gpu() else { return };
    let mut source = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    let indices = gpu.upload_words(&[1, 0]).unwrap();
    let mut before = gpu.alloc_floats(2).unwrap();
    let mut after = gpu.alloc_floats(2).unwrap();
    gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut before).unwrap();
    gpu.write_floats(&mut source, 0, &[10.0, 20.0]).unwrap();
    gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut after).unwrap();
    gpu.write_floats(&mut source, 0, &[100.0, 200.0]).unwrap();
    assert_eq!(gpu.read_floats(&before, 0, 2).unwrap(), [2.0, 1.0]);
    assert_eq!(gpu.read_floats(&after, 0, 2).unwrap(), [20.0, 10.0]);
    assert_eq!(gpu.read_floats(&source, 0, 2).unwrap(), [100.0, 200.0]);
}

#[test]
fn nothing_is_submitted_before_a_flush_or_a_read_back() {
    let Some(mut gpu) = gpu() else { return };
    let source = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    let indices = gpu.upload_words(&[1, 0]).unwrap();
    let mut target = gpu.alloc_floats(2).unwrap();
    gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
    assert_eq!(gpu.context.submissions(), 0);
    gpu.flush().unwrap();
    assert_eq!(gpu.context.submissions(), 1);
    gpu.flush().unwrap();
    assert_eq!(gpu.context.submissions(), 1, "there was nothing left to submit");
}

#[test]
fn ranges_outside_a_buffer_are_refused() {
    let Some(mut gpu) = gpu() else { return };
    let mut buffer = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    let other = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    for (offset, len) in [(0, 3), (2, 1), (usize::MAX, 2), (0, 0)] {
        assert!(matches!(gpu.read_floats(&buffer, offset, len), Err(Error::Shape { .. })), "{offset} {len}");
        assert!(matches!(gpu.copy_floats(&other, offset, &mut buffer, 0, len), Err(Error::Shape { .. })), "{offset} {len}");
    }
    assert!(matches!(gpu.write_floats(&mut buffer, 1, &[0.0, 0.0]), Err(Error::Shape { .. })));
    let mut same = buffer.clone();
    assert!(matches!(gpu.copy_floats(&buffer, 0, &mut same, 1, 1), Err(Error::Shape { .. })));
}

#[test]
fn a_buffer_beyond_the_adapters_limits_says_which_limit() {
    let Some(mut gpu) = gpu() else { return };
    let most = gpu.context.limits().max_storage_buffer_binding_size;
    match gpu.alloc_floats(most as usize / 4 + 1) {
        Err(Error::LimitExceeded { limit, needed, available }) => {
            assert_eq!((limit, needed, available), ("max_storage_buffer_binding_size", most / 4 * 4 + 4, most));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(gpu.alloc_floats(0), Err(Error::Shape { .. })));
    assert!(gpu.alloc_floats(16).is_ok(), "the device is still usable");
}

#[test]
fn a_shader_that_does_not_compile_is_an_error_and_not_a_panic() {
    let Some(mut gpu) = gpu() else { return };
    let source = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    let indices = gpu.upload_words(&[1, 0]).unwrap();
    let mut target = gpu.alloc_floats(2).unwrap();
    gpu.context.replace_shader("gather", "this is not WGSL".to_owned());
    match gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut target) {
        Err(Error::Device(message)) => assert!(message.contains("gather::rows"), "{message}"),
        other => panic!("{other:?}"),
    }
    gpu.context.replace_shader("gather", include_str!("../shaders/gather.wgsl").to_owned());
    gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
    assert_eq!(gpu.read_floats(&target, 0, 2).unwrap(), [2.0, 1.0]);
}

fn has_timestamps(gpu: &Gpu) -> bool {
    let all = adapters();
    let summary = all.iter().find(|adapter| adapter.info.name == gpu.context.name()).unwrap();
    summary.features.contains(&("timestamps", true))
}

/// Two submissions of a kernel, the first of two passes with a copy between them. Returns the seconds it took, waiting included.
fn two_submissions(gpu: &mut Gpu) -> f64 {
    const ROWS: usize = 1 << 16;
    let op = Gather { rows: ROWS, width: 16, start: 0, count: ROWS };
    let mut source = gpu.upload_floats(&vec![1.0; ROWS * 16]).unwrap();
    let indices = gpu.upload_words(&vec![7; ROWS]).unwrap();
    let mut target = gpu.alloc_floats(ROWS * 16).unwrap();
    let start = std::time::Instant::now();
    gpu.gather_floats(&op, &source, &indices, &mut target).unwrap();
    gpu.copy_floats(&target, 0, &mut source, 0, ROWS * 16).unwrap();
    gpu.gather_floats(&op, &source, &indices, &mut target).unwrap();
    gpu.flush().unwrap();
    gpu.gather_floats(&op, &source, &indices, &mut target).unwrap();
    assert_eq!(gpu.read_floats(&target, 0, 1).unwrap(), [1.0]);
    start.elapsed().as_secs_f64()
}

#[test]
fn the_gpus_time_is_positive_and_within_the_walls() {
    let Some(mut gpu) = gpu() else { return };
    gpu.context.set_timing(true);
    let has_timestamps = has_timestamps(&gpu);
    for _ in 0..2 {
        gpu.take_clocks().unwrap();
        let submissions = gpu.context.submissions();
        let wall = two_submissions(&mut gpu);
        assert_eq!(gpu.context.submissions(), submissions + 2);
        let Clocks { gpu_s, encode_s } = gpu.take_clocks().unwrap();
        assert_eq!(gpu_s.is_some(), has_timestamps);
        assert!(gpu_s.is_none_or(|seconds| seconds > 0.0 && seconds <= wall), "{gpu_s:?} within {wall}");
        // The host also worked on the uploads before.
        assert!(encode_s.is_some_and(|seconds| seconds > 0.0), "{encode_s:?}");
        assert_eq!(gpu.take_clocks().unwrap(), Clocks::default(), "nothing was submitted since");
    }
}

#[test]
fn without_timing_there_are_no_times() {
    let Some(mut gpu) = gpu() else { return };
    two_submissions(&mut gpu);
    assert_eq!(gpu.take_clocks().unwrap(), Clocks::default());
    gpu.context.set_timing(true);
    assert_eq!(gpu.take_clocks().unwrap(), Clocks::default(), "what was submitted before does not count");
    two_submissions(&mut gpu);
    gpu.context.set_timing(false);
    assert_eq!(gpu.take_clocks().unwrap(), Clocks::default());
    assert_eq!(Cpu::<f32>::new().take_clocks().unwrap(), Clocks::default());
}

#[test]
fn a_submission_without_a_pass_has_no_time_and_too_many_have_none() {
    let Some(mut gpu) = gpu() else { return };
    gpu.context.set_timing(true);
    let source = gpu.upload_floats(&[1.0, 2.0]).unwrap();
    let indices = gpu.upload_words(&[1, 0]).unwrap();
    let mut target = gpu.alloc_floats(2).unwrap();
    gpu.read_floats(&source, 0, 2).unwrap();
    assert_eq!(gpu.context.take_gpu_seconds().unwrap(), None, "a copy alone");
    for (submissions, fit) in [(256, true), (257, false), (1, true)] {
        for _ in 0..submissions {
            gpu.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
            gpu.flush().unwrap();
        }
        assert_eq!(gpu.context.take_gpu_seconds().unwrap().is_some(), fit && has_timestamps(&gpu), "{submissions}");
    }
}

#[test]
fn works_on_a_callers_device_buffers_and_encoder() {
    if gpu().is_none() {
        return;
    }
    let (device, queue) = common::callers_device(wgpu::Limits::default());
    let make = |usage, contents: &[f32]| {
        let raw = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 8, usage, mapped_at_creation: false });
        queue.write_buffer(&raw, 0, bytemuck::cast_slice(contents));
        raw
    };
    let refused = Buffer::<f32>::from_wgpu(make(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST, &[0.0; 2]), 2);
    assert!(matches!(refused, Err(Error::InvalidValue { .. })));
    let refused = Buffer::<f32>::from_wgpu(make(Buffer::<f32>::USAGES, &[0.0; 2]), 3);
    assert!(matches!(refused, Err(Error::Shape { .. })));

    let source = Buffer::<f32>::from_wgpu(make(Buffer::<f32>::USAGES, &[7.0, 8.0]), 2).unwrap();
    let mut ours = Gpu::on(Context::from_wgpu(device.clone(), queue.clone(), "mine".to_owned()));
    let indices = ours.upload_words(&[1, 0]).unwrap();
    let mut target = ours.alloc_floats(2).unwrap();
    ours.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    ours.context.encode_into(&mut encoder);
    queue.submit([encoder.finish()]);
    assert_eq!(ours.context.submissions(), 0, "the caller submits");
    assert_eq!(ours.read_floats(&target, 0, 2).unwrap(), [8.0, 7.0]);

    // What is written afterwards is not there yet for what the caller has still to submit.
    ours.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    ours.context.encode_into(&mut encoder);
    let mut source = source;
    ours.write_floats(&mut source, 0, &[70.0, 80.0]).unwrap();
    queue.submit([encoder.finish()]);
    assert_eq!(ours.read_floats(&target, 0, 2).unwrap(), [8.0, 7.0]);
    assert_eq!(ours.read_floats(&source, 0, 2).unwrap(), [70.0, 80.0]);
}

#[test]
fn sizes_beyond_all_numbers_are_refused() {
    let Some(mut gpu) = gpu() else { return };
    for len in [usize::MAX, 1 << 62, (1 << 62) + 1] {
        assert!(matches!(gpu.alloc_floats(len), Err(Error::LimitExceeded { needed: u64::MAX, .. })), "{len}");
        let two = gpu.upload_floats(&[1.0, 2.0]).unwrap();
        assert!(matches!(Buffer::<f32>::from_wgpu(two.raw().clone(), len), Err(Error::Shape { .. })), "{len}");
    }
}

#[test]
fn a_read_back_is_no_larger_than_the_largest_buffer() {
    if gpu().is_none() {
        return;
    }
    let most = 20 << 20;
    let required_limits =
        wgpu::Limits { max_buffer_size: most, max_storage_buffer_binding_size: most, ..wgpu::Limits::default() };
    let (device, queue) = common::callers_device(required_limits);
    let mut ours = Gpu::on(Context::from_wgpu(device, queue, "small".to_owned()));
    // More than half of it, so that the next power of two is beyond it.
    let len = 17 << 18;
    let zeros = ours.alloc_floats(len).unwrap();
    assert_eq!(ours.read_floats(&zeros, 0, len).unwrap(), vec![0.0; len]);
}

#[test]
fn adapters_are_found_by_name_and_number_and_a_wrong_one_lists_them() {
    let Some(gpu) = gpu() else { return };
    let name = gpu.context.name().to_owned();
    assert!(adapters().iter().any(|a| a.info.name == name));
    let part = name.to_uppercase().split(' ').next().unwrap().to_owned();
    assert!(Gpu::open(&Selection::Named(part)).is_ok());
    for (number, adapter) in adapters().iter().enumerate() {
        assert_eq!(Gpu::open(&Selection::Numbered(number)).unwrap().context.name(), adapter.info.name);
    }
    for (selection, wanted_of_it) in [
        (Selection::Named("no such adapter".to_owned()), "the name \"no such adapter\""),
        (Selection::Numbered(adapters().len()), &*format!("the number {}", adapters().len())),
    ] {
        match Gpu::open(&selection) {
            Err(Error::NoAdapter { found, wanted }) => assert!(found.contains(&name) && wanted == wanted_of_it, "{wanted}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_buffer_of_another_device_is_refused_wherever_it_comes() {
    let (Some(mut ours), Some(mut other)) = (gpu(), gpu()) else { return };
    let foreign = ours.upload_floats(&[1.0, 2.0, 3.0, 4.0]).unwrap();
    let mut own = other.upload_floats(&[42.0; 4]).unwrap();
    let indices = other.upload_words(&[3, 2, 1, 0]).unwrap();
    let mut target = other.alloc_floats(4).unwrap();
    let op = Gather { rows: 4, width: 1, start: 0, count: 4 };
    let mut foreign_target = foreign.clone();
    for (result, argument) in [
        (other.gather_floats(&op, &foreign, &indices, &mut target), "source of gather::rows"),
        (other.gather_floats(&op, &own, &indices, &mut foreign_target), "of gather::rows"),
        (other.write_floats(&mut foreign_target, 0, &[0.0]), "target"),
        (other.copy_floats(&foreign, 0, &mut own, 0, 1), "source"),
        (other.copy_floats(&own, 0, &mut foreign_target, 0, 1), "target"),
        (other.read_floats(&foreign, 0, 4).map(drop), "source"),
        (other.read_both(&indices, &foreign).map(drop), "floats"),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::InvalidValue { argument: a, expected, .. }
                if a.contains(argument) && expected == "a buffer of this device"),
            "{argument}: {error}"
        );
    }
    other.gather_floats(&op, &own, &indices, &mut target).unwrap();
    assert_eq!(other.read_floats(&target, 0, 4).unwrap(), [42.0; 4]);
    assert_eq!(ours.read_floats(&foreign, 0, 4).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_callers_device_that_was_destroyed_is_lost_whoever_hears_of_its_errors() {
    if gpu().is_none() {
        return;
    }
    let is_lost = |what: &str, result: ppo_kernels::Result<()>| {
        assert!(matches!(result, Err(Error::DeviceLost(_))), "{what}: {result:?}");
    };
    for has_run in [false, true] {
        let (device, queue) = common::callers_device(wgpu::Limits::default());
        let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let to = heard.clone();
        device.on_uncaptured_error(std::sync::Arc::new(move |error: wgpu::Error| to.lock().unwrap().push(error.to_string())));
        let mut ours = Gpu::on(Context::from_wgpu(device.clone(), queue, "mine".to_owned()));
        let mut source = ours.upload_floats(&[1.0, 2.0]).unwrap();
        let indices = ours.upload_words(&[1, 0]).unwrap();
        let mut target = ours.alloc_floats(2).unwrap();
        if has_run {
            ours.gather_floats(&FIRST_TWO, &source, &indices, &mut target).unwrap();
            assert_eq!(ours.read_floats(&target, 0, 2).unwrap(), [2.0, 1.0]);
        }
        device.destroy();
        is_lost("write", ours.write_floats(&mut source, 0, &[3.0]));
        is_lost("alloc", ours.alloc_floats(2).map(drop));
        is_lost("read", ours.read_floats(&source, 0, 1).map(drop));
        // With pipeline and bind group at hand it is recorded, and the flush says it.
        let recorded = ours.gather_floats(&FIRST_TWO, &source, &indices, &mut target);
        is_lost("dispatch", recorded.and_then(|()| ours.flush()));
        is_lost("again", ours.flush());
        assert_eq!(*heard.lock().unwrap(), Vec::<String>::new(), "what is known here need not be told the caller");
    }
}

#[test]
fn contexts_on_one_device_share_its_buffers() {
    if gpu().is_none() {
        return;
    }
    let (device, queue) = common::callers_device(wgpu::Limits::default());
    let on = || Gpu::on(Context::from_wgpu(device.clone(), queue.clone(), "mine".to_owned()));
    let (mut one, mut two) = (on(), on());
    let numbers = one.upload_floats(&[1.0, 2.0]).unwrap();
    one.flush().unwrap();
    assert_eq!(two.read_floats(&numbers, 0, 2).unwrap(), [1.0, 2.0]);
}
