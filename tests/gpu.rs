//! The device layer: order of writes, limits, guards, and working on a caller's own device.

mod common;

use common::gpu;
use ppo_kernels::Error;
use ppo_kernels::backend::{GatherOps, Gpu, Memory};
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

#[test]
fn works_on_a_callers_device_buffers_and_encoder() {
    if gpu().is_none() {
        return;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
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
}

#[test]
fn adapters_are_found_by_name_and_a_wrong_name_lists_them() {
    let Some(gpu) = gpu() else { return };
    let name = gpu.context.name().to_owned();
    assert!(adapters().iter().any(|a| a.info.name == name));
    let part = name.to_uppercase().split(' ').next().unwrap().to_owned();
    assert!(Gpu::open(&Selection::Named(part)).is_ok());
    match Gpu::open(&Selection::Named("no such adapter".to_owned())) {
        Err(Error::NoAdapter { found, .. }) => assert!(found.contains(&name)),
        other => panic!("{other:?}"),
    }
}
