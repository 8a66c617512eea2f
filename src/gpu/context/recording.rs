//! Recording dispatches, and submitting the recorded commands.

use std::sync::Weak;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::guards::POISON;
use super::{Context, Timing};
use crate::error::{Error, Result};
use crate::gpu::buffer::{Allocation, Bound, BufferKey, allocations_freed};
use crate::gpu::command::{Command, encode};
use crate::gpu::shader::{Grid, Shader, ShaderParams};

/// Most cached bind groups: a rollout step needs one, a minibatch step of small networks three.
const MOST_BIND_GROUPS: usize = 1 << 14;

#[derive(PartialEq, Eq, Hash)]
struct BindGroupKey {
    pipeline: usize,
    params: SmallVec<[u8; 128]>,
    buffers: SmallVec<[(u32, BufferKey); 10]>,
}

/// A cache of bind groups and their uniforms. An entry lives as long as all its buffers.
#[derive(Default)]
pub(super) struct BindGroups {
    made: HashMap<BindGroupKey, (wgpu::BindGroup, Vec<Weak<Allocation>>)>,
    /// [`allocations_freed`] at the last search for stale entries.
    allocations_freed: u64,
}

impl BindGroups {
    pub(super) fn clear(&mut self) {
        self.made.clear();
    }

    /// Drops the bind groups of dropped buffers, whose memory they hold.
    pub(super) fn drop_stale(&mut self) {
        let now = allocations_freed();
        if std::mem::replace(&mut self.allocations_freed, now) != now {
            self.made.retain(|_, (_, allocations)| allocations.iter().all(|allocation| allocation.strong_count() > 0));
        }
    }
}

impl Context {
    /// Records a dispatch. `buffers` go to the shader's variables of these names; `params` is the
    /// uniform at binding 0. Private, because a shader with proven indices relies on its kernel's
    /// checks of lengths.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for the grid, [`Error::Device`] from the compiler,
    /// [`Error::InvalidValue`] for a shader that needs checks on an unchecked context.
    pub(crate) fn dispatch<P: ShaderParams>(
        &mut self,
        shader: Shader,
        entry: &'static str,
        constants: &[(&'static str, f64)],
        params: &P,
        buffers: &[Bound],
        grid: Grid,
    ) -> Result<()> {
        if self.guards && shader.name != POISON {
            self.poison_workgroup_memory()?;
        }
        let groups = self.fold(grid)?;
        let pipeline = self.pipeline(shader, entry, constants)?;
        let params = bytemuck::bytes_of(params);
        let bound = |(name, buffer): &Bound| Ok((self.pipelines.binding(shader, name)?, buffer.key()));
        let keys = buffers.iter().map(bound).collect::<Result<_>>()?;
        let key = BindGroupKey { pipeline, params: SmallVec::from_slice(params), buffers: keys };
        let bind_group = match self.bind_groups.made.get(&key) {
            Some((known, _)) => known.clone(),
            None => {
                for (name, buffer) in buffers {
                    self.require_own(&format!("{name} of {}::{entry}", shader.name), buffer)?;
                }
                self.require_alive()?;
                let made = self.bind(&key, buffers)?;
                if self.bind_groups.made.len() >= MOST_BIND_GROUPS {
                    self.bind_groups.clear();
                }
                let allocations = buffers.iter().map(|(_, buffer)| buffer.allocation()).collect();
                self.bind_groups.made.insert(key, (made.clone(), allocations));
                made
            }
        };
        self.commands.push(Command::Dispatch { pipeline, bind_group, groups });
        Ok(())
    }

    fn bind(&mut self, key: &BindGroupKey, buffers: &[Bound]) -> Result<wgpu::BindGroup> {
        let size = key.params.len().next_multiple_of(16) as u64;
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.count(size);
            return Ok(dry_run.bind_group.clone());
        }
        let uniform = self.create(size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, "params")?;
        self.write_now(&uniform, 0, &key.params);
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
        for ((binding, _), (_, buffer)) in key.buffers.iter().zip(buffers) {
            entries.push(wgpu::BindGroupEntry { binding: *binding, resource: buffer.binding() });
        }
        Ok(self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipelines.made[key.pipeline].get_bind_group_layout(0),
            entries: &entries,
        }))
    }

    fn fold(&self, grid: Grid) -> Result<[u32; 3]> {
        let most = self.limits.max_compute_workgroups_per_dimension as usize;
        let groups = match grid {
            Grid::Linear(n) if n <= most => [n, 1, 1],
            Grid::Linear(n) => [n.div_ceil(n.div_ceil(most)), n.div_ceil(most), 1],
            Grid::Xyz(x, y, z) => [x, y, z],
        };
        if let Some(&needed) = groups.iter().find(|&&g| g > most) {
            return Err(Error::LimitExceeded {
                limit: "max_compute_workgroups_per_dimension",
                needed: needed as u64,
                available: most as u64,
            });
        }
        Ok(groups.map(|g| g as u32))
    }

    /// Moves the recorded commands into a caller's encoder, untimed. The caller must submit it
    /// before this context reads back or flushes later commands.
    pub fn encode_into(&mut self, encoder: &mut wgpu::CommandEncoder) {
        self.is_encoded_elsewhere = true;
        encode(&std::mem::take(&mut self.commands), &self.pipelines.made, encoder, None);
    }

    /// Submits all recorded commands without waiting.
    ///
    /// # Errors
    /// The device's errors since the last call.
    pub fn flush(&mut self) -> Result<()> {
        self.require_alive()?;
        if self.dry_run.is_some() {
            self.commands.clear();
        }
        self.bind_groups.drop_stale();
        if !self.commands.is_empty() {
            let commands = std::mem::take(&mut self.commands);
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let queries = self.timing.as_ref().and_then(Timing::queries);
            encode(&commands, &self.pipelines.made, &mut encoder, queries);
            if let Some(timing) = &mut self.timing
                && commands.iter().any(Command::is_dispatch)
            {
                timing.resolve(&mut encoder);
            }
            let encoded = encoder.finish();
            self.timing.iter_mut().for_each(Timing::stop_host);
            self.queue.submit([encoded]);
            self.timing.iter_mut().for_each(Timing::resume_host);
            self.submissions += 1;
        }
        self.raise_reported()
    }
}
