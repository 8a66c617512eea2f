//! The device layer: adapters, buffers, pipelines and the recording of dispatches. It knows no kernel.

mod adapter;
mod buffer;
mod command;
mod context;
mod shader;
mod timing;

pub use adapter::{AdapterSummary, CooperativeMatrix, Selection, adapters};
pub use buffer::Buffer;
pub(crate) use buffer::bind;
pub use context::Context;
pub(crate) use shader::shader_params;
pub use shader::{Field, Grid, Indices, Shader, ShaderParams};
