//! Where the operations run. Everything above the kernels is written against one trait, [`Backend`].
//!
//! [`Backend`] is the sum of [`Memory`] and one trait a kernel; each of those stands, with its implementations for
//! [`Gpu`], [`Cpu`] and [`CrossCheck`], in the file that has the kernel's name.

mod actor_critic;
mod advantage;
mod cpu;
mod cross_check;
mod gather;
#[cfg(feature = "gpu")]
mod gpu;
mod linear;
mod nonfinite;
mod normalize;
mod optimizer;
mod planning;
mod policy;
mod random;
mod surrogate;
#[cfg(feature = "gpu")]
mod tensor_core;

pub use actor_critic::{
    Actions, ActorCriticOps, Drawn, Head, Minibatch, MinibatchInputs, MinibatchRows, Parameters, RolloutRows, Rows, Trace,
    TrainState, compose_minibatch_gradient, forward,
};
pub use advantage::AdvantageOps;
pub use cpu::Cpu;
pub use cross_check::{CrossCheck, Worst};
pub use gather::GatherOps;
#[cfg(feature = "gpu")]
pub use gpu::Gpu;
pub use linear::LinearOps;
pub use nonfinite::NonfiniteOps;
pub use normalize::NormalizeOps;
pub use optimizer::OptimizerOps;
pub use planning::{PlanMemory, Rehearsal};
pub use policy::PolicyOps;
pub use random::RandomOps;
pub use surrogate::SurrogateOps;

pub use crate::kernels::linear::Precision;
pub use crate::layout::Variant;
pub use crate::operands::{Length, Pair};

use crate::error::Result;

/// Where a learner is, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the update.
    pub update: Option<usize>,
    /// Index of the minibatch step within the update.
    pub minibatch: Option<usize>,
}

/// Buffers, and moving numbers between them and the host.
pub trait Memory: Send {
    /// A buffer of real numbers: `f32`, or what the backend computes in.
    type Floats: Length + std::fmt::Debug + Send + Sync + 'static;
    /// A buffer of `u32`: indices, actions, masks, flags.
    type Words: Length + std::fmt::Debug + Send + Sync + 'static;

    /// Backend and adapter, for people.
    fn describe(&self) -> String;

    /// `len` zeros. (Poison in a GPU's guarded mode: do not rely on the zeros, write what you read.)
    ///
    /// # Errors
    /// Zero elements; more than the adapter allows; out of memory.
    fn alloc_floats(&mut self, len: usize) -> Result<Self::Floats>;
    /// As [`alloc_floats`](Self::alloc_floats).
    ///
    /// # Errors
    /// The same.
    fn alloc_words(&mut self, len: usize) -> Result<Self::Words>;

    /// Writes `data` from element `offset` on.
    ///
    /// # Errors
    /// A range outside the buffer.
    fn write_floats(&mut self, target: &mut Self::Floats, offset: usize, data: &[f32]) -> Result<()>;
    /// As [`write_floats`](Self::write_floats), rounded to what the backend stores.
    ///
    /// # Errors
    /// The same.
    fn write_f64(&mut self, target: &mut Self::Floats, offset: usize, data: &[f64]) -> Result<()>;
    /// As [`write_floats`](Self::write_floats).
    ///
    /// # Errors
    /// The same.
    fn write_words(&mut self, target: &mut Self::Words, offset: usize, data: &[u32]) -> Result<()>;

    /// Copies `len` elements between two buffers.
    ///
    /// # Errors
    /// A range outside its buffer.
    fn copy_floats(
        &mut self,
        source: &Self::Floats,
        source_offset: usize,
        target: &mut Self::Floats,
        target_offset: usize,
        len: usize,
    ) -> Result<()>;

    /// `len` elements from `offset` on, rounded to `f32`.
    ///
    /// # Errors
    /// A range outside the buffer; whatever the device reported since the last read-back.
    fn read_floats(&mut self, source: &Self::Floats, offset: usize, len: usize) -> Result<Vec<f32>>;
    /// As [`read_floats`](Self::read_floats), without rounding.
    ///
    /// # Errors
    /// The same.
    fn read_f64(&mut self, source: &Self::Floats, offset: usize, len: usize) -> Result<Vec<f64>>;
    /// As [`read_floats`](Self::read_floats).
    ///
    /// # Errors
    /// The same.
    fn read_words(&mut self, source: &Self::Words, offset: usize, len: usize) -> Result<Vec<u32>>;
    /// All of both, floats without rounding: from a device that is waited for, in one go.
    ///
    /// # Errors
    /// Those of [`read_floats`](Self::read_floats).
    fn read_both(&mut self, words: &Self::Words, floats: &Self::Floats) -> Result<(Vec<u32>, Vec<f64>)> {
        Ok((self.read_words(words, 0, words.len())?, self.read_f64(floats, 0, floats.len())?))
    }

    /// Submits what is recorded, without waiting.
    ///
    /// # Errors
    /// Whatever the device reported since the last call.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Submits what is recorded where the device can then work while the host records more: not on software adapters, which compute on
    /// the host's cores.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    fn submit_ahead(&mut self) -> Result<()> {
        Ok(())
    }

    /// Runs many operations one after the other. A backend with threads of its own does so on one of them, which then shares its work faster.
    fn run_together<R: Send>(&mut self, operations: impl FnOnce(&mut Self) -> R + Send) -> R
    where
        Self: Sized,
    {
        operations(self)
    }

    /// Where the caller is, so that a cross-check can say where it failed.
    fn set_position(&mut self, _position: Position) {}

    /// Fails if something was written next to `buffer` (only backends with guard regions can tell).
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) naming the overwritten element.
    fn check_float_guards(&mut self, _buffer: &Self::Floats) -> Result<()> {
        Ok(())
    }
    /// As [`check_float_guards`](Self::check_float_guards).
    ///
    /// # Errors
    /// The same.
    fn check_word_guards(&mut self, _buffer: &Self::Words) -> Result<()> {
        Ok(())
    }

    /// A new buffer holding `data`.
    ///
    /// # Errors
    /// Those of [`alloc_floats`](Self::alloc_floats).
    fn upload_floats(&mut self, data: &[f32]) -> Result<Self::Floats> {
        let mut buffer = self.alloc_floats(data.len())?;
        self.write_floats(&mut buffer, 0, data)?;
        Ok(buffer)
    }
    /// A new buffer holding `data`.
    ///
    /// # Errors
    /// Those of [`alloc_words`](Self::alloc_words).
    fn upload_words(&mut self, data: &[u32]) -> Result<Self::Words> {
        let mut buffer = self.alloc_words(data.len())?;
        self.write_words(&mut buffer, 0, data)?;
        Ok(buffer)
    }
}

/// Memory and every operation of PPO.
pub trait Backend: Memory + ActorCriticOps + AdvantageOps + NormalizeOps + RandomOps {}

impl<B> Backend for B where B: Memory + ActorCriticOps + AdvantageOps + NormalizeOps + RandomOps {}
