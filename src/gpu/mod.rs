//! The device layer: adapters, buffers, pipelines, recorded dispatches. It knows no kernel.
//!
//! `tuning` times candidates on a [`Context`]; the context holds only the `cache` of choices.
//! `wait` is the only module that blocks.

mod adapter;
mod autotune;
mod buffer;
mod cache;
mod choices;
mod command;
mod context;
mod dry_run;
mod pipeline_cache;
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod robustness;
mod shader;
mod timing;
mod tuning;
mod wait;

pub use adapter::{AdapterSummary, CooperativeMatrix, Selection, adapters};
pub use autotune::Autotune;
pub use buffer::Buffer;
pub(crate) use buffer::{Bound, bind};
pub(crate) use cache::TuningKey;
pub use context::{Context, OpenOptions};
pub(crate) use shader::shader_params;
pub use shader::{Field, Grid, Indices, Shader, ShaderParams, bindings};
pub(crate) use tuning::{TuningProblem, fastest};
