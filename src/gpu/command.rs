//! Recorded commands and their encoding.

use super::timing::{PassPosition, timestamp_writes};

pub(super) enum Command {
    Dispatch { pipeline: usize, bind_group: wgpu::BindGroup, groups: [u32; 3] },
    Copy { source: wgpu::Buffer, source_offset: u64, target: wgpu::Buffer, target_offset: u64, size: u64 },
}

impl Command {
    pub(super) fn is_dispatch(&self) -> bool {
        matches!(self, Command::Dispatch { .. })
    }
}

/// Encodes each run of dispatches as one compute pass; the first and last write into `queries`.
pub(super) fn encode(
    commands: &[Command],
    pipelines: &[wgpu::ComputePipeline],
    encoder: &mut wgpu::CommandEncoder,
    queries: Option<&wgpu::QuerySet>,
) {
    let runs = || commands.chunk_by(|a, b| a.is_dispatch() && b.is_dispatch());
    let passes = queries.map_or(0, |_| runs().filter(|run| run[0].is_dispatch()).count());
    let mut passes_before = 0;
    for run in runs() {
        if let Command::Copy { source, source_offset, target, target_offset, size } = &run[0] {
            encoder.copy_buffer_to_buffer(source, *source_offset, target, *target_offset, *size);
            continue;
        }
        let position = PassPosition { first: passes_before == 0, last: passes_before + 1 == passes };
        passes_before += 1;
        let timestamp_writes = queries.and_then(|queries| timestamp_writes(queries, position));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        for command in run {
            if let Command::Dispatch { pipeline, bind_group, groups: [x, y, z] } = command {
                pass.set_pipeline(&pipelines[*pipeline]);
                pass.set_bind_group(0, bind_group, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
    }
}
