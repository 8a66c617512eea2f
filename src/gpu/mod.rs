//! The device layer: adapters, buffers, pipelines and the recording of dispatches. It knows no kernel.

mod adapter;
mod autotune;
mod buffer;
mod choices;
mod command;
mod context;
mod pipeline_store;
mod planning;
mod poll;
mod pulse;
mod robustness;
mod shader;
mod timing;
mod tuning;

pub use adapter::{AdapterSummary, CooperativeMatrix, Selection, adapters};
pub use autotune::Autotune;
pub use buffer::Buffer;
pub(crate) use buffer::bind;
pub use context::{Context, OpenOptions};
pub(crate) use shader::shader_params;
pub use shader::{Field, Grid, Indices, Shader, ShaderParams};
pub(crate) use tuning::{Question, Trial};
