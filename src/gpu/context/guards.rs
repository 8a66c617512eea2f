//! Guarded mode finds kernels that write outside their buffers or read unwritten memory.

use super::Context;
use crate::error::{Error, Result};
use crate::gpu::buffer::{Buffer, bind};
use crate::gpu::shader::{Grid, Indices, Shader, shader_params};

/// Elements of a guard region: 256 bytes, WebGPU's strictest offset alignment.
pub(super) const GUARD_ELEMENTS: usize = 64;
/// Contents of guard regions: as `f32`, a NaN whose payload no arithmetic produces.
pub(super) const GUARD_WORD: u32 = 0x7fc0_dead;
/// Contents of new buffers and workgroup memory: a NaN, which shows up in outputs never written.
pub(super) const POISON_WORD: u32 = 0x7fc0_beef;

pub(super) const POISON: &str = "poison";

shader_params! {
    struct PoisonParams {
        word: u32,
        looked_at: u32,
    }
}

/// Fills WebGPU's minimum of workgroup memory. `seen` only keeps compilers from removing the
/// writes.
const SHADER: Shader = Shader {
    name: POISON,
    source: "
        struct PoisonParams {
            word: u32,
            looked_at: u32,
        }

        const WORDS = 4096u;

        @group(0) @binding(0) var<uniform> params: PoisonParams;
        @group(0) @binding(1) var<storage, read_write> seen: array<u32>;

        var<workgroup> memory: array<u32, WORDS>;

        @compute @workgroup_size(256)
        fn poison(@builtin(local_invocation_index) local: u32) {
            for (var i = local; i < WORDS; i += 256u) {
                memory[i] = params.word;
            }
            workgroupBarrier();
            if memory[params.looked_at] != params.word {
                seen[0] = 1u;
            }
        }
    ",
    indices: Indices::Checked,
};

/// Several per CPU thread; all workgroup memory of a large GPU (132 × 228 KiB).
const WORKGROUPS_ON_SOFTWARE: usize = 64;
const WORKGROUPS: usize = 2048;

impl Context {
    /// Turns guarded mode on or off. New buffers get guard regions and NaN, and workgroup memory
    /// holds NaN before dispatches. A [read-back](Self::read) fails after a write to a guard
    /// region.
    pub fn set_guards(&mut self, guards: bool) {
        self.guards = guards;
    }

    /// Fails with the index of the first overwritten guard word: negative, or at least `len`.
    pub(super) fn check_guards<T>(&mut self, buffer: &Buffer<T>) -> Result<()> {
        if !buffer.is_guarded() || self.dry_run.is_some() {
            return Ok(());
        }
        let words: Vec<u32> = self.read_bytes(&[(buffer.raw(), 0, buffer.raw().size())], bytemuck::pod_collect_to_vec)?;
        let data = GUARD_ELEMENTS..GUARD_ELEMENTS + buffer.len();
        let Some(broken) = words.iter().enumerate().position(|(i, &w)| !data.contains(&i) && w != GUARD_WORD) else {
            return Ok(());
        };
        let at = broken as i64 - GUARD_ELEMENTS as i64;
        Err(Error::Device(format!(
            "a kernel wrote element {at} of a buffer of {} elements; correct the kernel's indices",
            buffer.len()
        )))
    }

    /// Records a dispatch that fills workgroup memory with NaN. The next dispatch finds it on
    /// devices that do not zero the memory.
    pub(super) fn poison_workgroup_memory(&mut self) -> Result<()> {
        let seen = self.scratch::<u32>(POISON, 1)?;
        let workgroups = if self.is_software() { WORKGROUPS_ON_SOFTWARE } else { WORKGROUPS };
        let params = PoisonParams { word: POISON_WORD, looked_at: 0 };
        self.dispatch(SHADER, POISON, &[], &params, &[bind("seen", &seen)], Grid::Linear(workgroups))
    }
}
