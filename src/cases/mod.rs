//! Case files: problems with solutions in double precision, for checks of the crate's kernels.
//!
//! A case file is a safetensors file. Its metadata has the `kind` of problem and the
//! hyper-parameters. `in.NAME.f32` are inputs; `out.NAME` and `grad.NAME` are the solution.
//! `f32err:` and `f32abs:` in the metadata are PyTorch's errors in single precision.

mod advantage;
mod compare;
mod config;
mod file;
mod inputs;
mod loss;
mod mlp;
mod optimizer;
mod policy;
mod update;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub use compare::{Allowance, Element, TensorReport};
pub use file::{CaseFile, Tensor, Values, case_name};
use inputs::Inputs;
use safetensors::tensor::{Dtype, TensorView};

use crate::backend::{Backend, Length};
use crate::error::{Error, Result};

/// Most elements of a computed tensor: a gigabyte of `f32`.
const MOST_ELEMENTS: usize = 1 << 28;

type Solve<B> = fn(&mut Problem<'_, B>) -> Result<()>;

fn solver<B: Backend>(kind: &str) -> Option<Solve<B>> {
    Some(match kind {
        "activations" => mlp::activations,
        "mlp" => mlp::mlp,
        "gae" => advantage::gae,
        "advantage_normalisation" => advantage::normalisation,
        "categorical" => policy::categorical,
        "masked_categorical" => policy::masked_categorical,
        "diag_gaussian" => policy::diag_gaussian,
        "tanh_gaussian" => policy::tanh_gaussian,
        "clipped_surrogate" => loss::clipped_surrogate,
        "value_loss" => loss::value_loss,
        "kl_penalty" => loss::kl_penalty,
        "ppo_loss" => loss::ppo_loss,
        "adam" => optimizer::adam,
        "ppo_update" => update::ppo_update,
        _ => return None,
    })
}

/// The report of a case file.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// The file's name without folder and extension.
    pub case: String,
    /// The kind of problem.
    pub kind: String,
    /// Every `out.` and `grad.` tensor in the order of computation; missing ones come last.
    pub tensors: Vec<TensorReport>,
    /// Inputs and hyper-parameters of the file that nothing used.
    pub unused: Vec<String>,
    /// The computed tensors.
    pub outputs: BTreeMap<String, Tensor>,
}

impl CaseReport {
    /// Whether every tensor passed.
    pub fn passed(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.passed)
    }

    /// The tensor with the largest error relative to the allowed one.
    pub fn worst(&self) -> Option<&TensorReport> {
        self.tensors.iter().max_by(|a, b| a.badness().total_cmp(&b.badness()))
    }

    /// The outputs as a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] from the format.
    pub fn to_safetensors(&self, backend: &str) -> Result<Vec<u8>> {
        let unusable = |error: safetensors::SafeTensorError| Error::File { path: (&self.case).into(), reason: error.to_string() };
        let encoded: Vec<(Dtype, Vec<u8>)> = self.outputs.values().map(|tensor| encode(&tensor.values)).collect();
        let views = self.outputs.iter().zip(&encoded).map(|((name, tensor), (dtype, bytes))| {
            TensorView::new(*dtype, tensor.shape.clone(), bytes).map(|view| (name.as_str(), view)).map_err(unusable)
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata = [("kind", self.kind.as_str()), ("case", &self.case), ("backend", backend)];
        let metadata: HashMap<String, String> = metadata.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        safetensors::serialize(views, Some(metadata)).map_err(unusable)
    }
}

fn encode(values: &Values) -> (Dtype, Vec<u8>) {
    match values {
        Values::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Values::F64(values) => (Dtype::F64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Values::I64(values) => (Dtype::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Values::U8(values) => (Dtype::U8, values.clone()),
    }
}

/// Reads a file and [`check`]s it.
///
/// # Errors
/// Those of [`CaseFile::open`] and [`check`].
pub fn check_file<B: Backend>(backend: &mut B, path: &Path, allowance: &Allowance) -> Result<CaseReport> {
    check(backend, &CaseFile::open(path)?, allowance)
}

/// Computes every tensor of the solution and compares. A tensor that was not computed fails.
///
/// # Errors
/// An unknown kind or tensor; missing or invalid inputs; no solution; those of the backend.
pub fn check<B: Backend>(backend: &mut B, file: &CaseFile, allowance: &Allowance) -> Result<CaseReport> {
    let solve = solver(file.kind()).ok_or_else(|| file.unusable(format!("unknown kind {:?}", file.kind())))?;
    if let Some(name) = file.names().find(|name| !["in.", "out.", "grad."].iter().any(|prefix| name.starts_with(prefix))) {
        return Err(file.unusable(format!("tensor {name}: expected a name that begins with in., out. or grad.")));
    }
    if file.expected().next().is_none() {
        return Err(file.unusable("no out. or grad. tensor to compare"));
    }
    let inputs = Inputs::new(file);
    let mut problem = Problem { backend, file: &inputs, computed: BTreeMap::new() };
    solve(&mut problem)?;
    let computed = problem.computed;
    let values = |name: &str| computed.get(name).map(|computed| &computed.values[..]);
    let compared = file.expected().map(|(name, expected)| compare::compare(file, name, expected, values(name), allowance));
    let mut tensors = compared.collect::<Result<Vec<_>>>()?;
    tensors.sort_by_key(|tensor| computed.get(&tensor.name).map_or(usize::MAX, |computed| computed.place));
    let output = |(name, expected): (&str, &Tensor)| {
        let values = values(name).filter(|values| values.len() == expected.len())?;
        // Integers stay integers; all else is f64, without rounding.
        let values = match expected.values {
            Values::I64(_) => Values::I64(values.iter().map(|&value| value as i64).collect()),
            _ => Values::F64(values.to_vec()),
        };
        Some((name.to_owned(), Tensor { shape: expected.shape.clone(), values }))
    };
    let outputs = file.expected().filter_map(output).collect();
    Ok(CaseReport { case: file.case(), kind: file.kind().to_owned(), tensors, unused: inputs.unused(), outputs })
}

/// A case file on a backend, with the results so far.
struct Problem<'a, B: Backend> {
    backend: &'a mut B,
    file: &'a Inputs<'a>,
    computed: BTreeMap<String, Computed>,
}

struct Computed {
    /// Number of earlier results.
    place: usize,
    values: Vec<f64>,
}

impl<B: Backend> Problem<'_, B> {
    /// The input `in.NAME.f32` of exactly this shape, which confirms sizes from the metadata.
    fn input(&mut self, name: &str, shape: &[usize]) -> Result<B::Floats> {
        self.backend.upload_floats(self.file.f32s(name, shape)?)
    }

    /// Flags `in.NAME.f32`, CleanRL's type.
    fn f32_flags(&mut self, name: &str, shape: &[usize]) -> Result<B::Floats> {
        self.backend.upload_floats(self.file.f32_flags(name, shape)?)
    }

    fn flags(&mut self, name: &str, shape: &[usize]) -> Result<B::Words> {
        self.backend.upload_words(&self.file.flags(name, shape)?)
    }

    /// Indices `in.NAME` below `below`.
    fn indices(&mut self, name: &str, shape: &[usize], below: usize) -> Result<B::Words> {
        self.backend.upload_words(&self.file.indices(name, shape, below)?)
    }

    fn alloc(&mut self, len: usize) -> Result<B::Floats> {
        // A product of sizes can far exceed the file.
        if len > MOST_ELEMENTS {
            return Err(self.file.unusable(format!("a tensor of {len} elements; reduce it to at most {MOST_ELEMENTS}")));
        }
        self.backend.alloc_floats(len)
    }

    fn filled(&mut self, len: usize, value: f64) -> Result<B::Floats> {
        let mut buffer = self.alloc(len)?;
        self.backend.write_f64(&mut buffer, 0, &vec![value; len])?;
        Ok(buffer)
    }

    fn read(&mut self, buffer: &B::Floats) -> Result<Vec<f64>> {
        self.backend.read_f64(buffer, 0, buffer.len())
    }

    /// Adds a buffer to the results.
    fn keep(&mut self, name: impl Into<String>, buffer: &B::Floats) -> Result<()> {
        let values = self.read(buffer)?;
        self.keep_values(name, values);
        Ok(())
    }

    /// Adds host numbers to the results.
    fn keep_values(&mut self, name: impl Into<String>, values: Vec<f64>) {
        let place = self.computed.len();
        self.computed.insert(name.into(), Computed { place, values });
    }
}
