//! Guarded mode finds two faults: a kernel writes outside its buffers, or reads memory that nobody wrote.

use super::Context;
use crate::error::{Error, Result};
use crate::gpu::buffer::{Buffer, bind};
use crate::gpu::shader::{Grid, Indices, Shader, shader_params};

/// Elements of guard before and after each buffer in guarded mode. 64 elements are 256 bytes, WebGPU's strictest offset alignment.
pub(super) const GUARD_ELEMENTS: usize = 64;
/// What guard regions hold. As `f32` it is a NaN with a payload no arithmetic makes.
pub(super) const GUARD_WORD: u32 = 0x7fc0_dead;
/// What fresh buffers and workgroup memory hold in guarded mode: a NaN, so that an output nobody wrote is noticed.
pub(super) const POISON_WORD: u32 = 0x7fc0_beef;

/// The shader's name, and its entry point's.
pub(super) const POISON: &str = "poison";

shader_params! {
    struct PoisonParams {
        word: u32,
        looked_at: u32,
    }
}

/// As much workgroup memory as WebGPU promises. What is read back decides nothing, but keeps compilers from leaving out the writes.
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

/// Several times what a CPU has threads, and all of a large GPU's workgroup memory (228 KiB in each of 132 multiprocessors).
const WORKGROUPS_ON_SOFTWARE: usize = 64;
const WORKGROUPS: usize = 2048;

impl Context {
    /// From now on, surrounds each new buffer with guard regions and fills it with NaN, leaves NaN in workgroup memory before each dispatch,
    /// and lets a [read-back](Self::read) fail where a guard region of the buffer was overwritten.
    pub fn set_guards(&mut self, guards: bool) {
        self.guards = guards;
    }

    /// Fails with the index of the first guard word that was overwritten: negative before the first element, at least `len` after the last.
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
        Err(Error::Device(format!("a kernel wrote element {at} of a buffer of {} elements", buffer.len())))
    }

    /// Records a dispatch that leaves NaN in the device's workgroup memory. No API promises that the next one finds it there, but where memory is
    /// not zeroed for it, it does.
    pub(super) fn poison_workgroup_memory(&mut self) -> Result<()> {
        let seen = self.scratch::<u32>(POISON, 1)?;
        let workgroups = if self.is_software() { WORKGROUPS_ON_SOFTWARE } else { WORKGROUPS };
        let params = PoisonParams { word: POISON_WORD, looked_at: 0 };
        self.dispatch(SHADER, POISON, &[], &params, &[bind("seen", &seen)], Grid::Linear(workgroups))
    }
}
