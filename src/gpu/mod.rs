//! The device layer: adapters, buffers, pipelines and the recording of dispatches. It knows no kernel.
//!
//! Imports run one way: `tuning` times candidates on a [`Context`], which knows nothing of it and holds only the `cache` of the
//! choices. All modules stand on `wait`, the only one that blocks.

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
