//! One kernel inside somebody else's wgpu program: their device, their buffers, their encoder, their submission.
//!
//! `cargo run --release --example gae_in_your_encoder`

use ppo_kernels::backend::{AdvantageOps, Gpu, Memory};
use ppo_kernels::gpu::{Buffer, Context};
use ppo_kernels::kernels::advantage::{Gae, GaeOperands};
use ppo_kernels::wgpu;

const STEPS: usize = 3;
const ENVS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The host program's own device and buffers.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let rewards = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("rewards"),
        size: (4 * STEPS * ENVS) as u64,
        usage: Buffer::<f32>::USAGES,
        mapped_at_creation: false,
    });
    queue.write_buffer(&rewards, 0, bytemuck::cast_slice(&[1.0f32, 1.0, 2.0, 2.0, 3.0, 3.0]));

    // Ours, on the same device.
    let mut gpu = Gpu::on(Context::from_wgpu(device.clone(), queue.clone(), adapter.get_info().name));
    let rewards = Buffer::from_wgpu(rewards, STEPS * ENVS)?;
    let values = gpu.upload_floats(&[0.0; STEPS * ENVS])?;
    let next_values = gpu.upload_floats(&[0.0; STEPS * ENVS])?;
    // Environment 0 terminates after its second step.
    let terminated = gpu.upload_words(&[0, 0, 1, 0, 0, 0])?;
    let truncated = gpu.upload_words(&[0; STEPS * ENVS])?;
    let mut advantages = gpu.alloc_floats(STEPS * ENVS)?;
    let mut returns = gpu.alloc_floats(STEPS * ENVS)?;
    let op = Gae { steps: STEPS, envs: ENVS, gamma: 1.0, gae_lambda: 1.0 };
    let operands = GaeOperands {
        rewards: &rewards,
        values: &values,
        next_values: &next_values,
        terminated: &terminated,
        truncated: &truncated,
        advantages: &mut advantages,
        returns: &mut returns,
    };
    gpu.gae(&op, operands)?;

    // Recorded so far; into the host program's encoder with it.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    gpu.context.encode_into(&mut encoder);
    queue.submit([encoder.finish()]);

    println!("advantages [T, N]: {:?}", gpu.read_floats(&advantages, 0, STEPS * ENVS)?);
    Ok(())
}
