//! Case files: safetensors, read whole and checked, so that what follows can trust names, types and shapes.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};

/// The largest file that is read. A case is a few hundred kilobytes; a pipe or a device may never end.
const LARGEST_FILE: u64 = 1 << 30;

/// Elements of a tensor, in the four types that case files have.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Inputs as a program gets them.
    F32(Vec<f32>),
    /// The truth.
    F64(Vec<f64>),
    /// Actions, permutations.
    I64(Vec<i64>),
    /// Flags, masks.
    U8(Vec<u8>),
}

impl Values {
    fn name(&self) -> &'static str {
        match self {
            Values::F32(_) => "F32",
            Values::F64(_) => "F64",
            Values::I64(_) => "I64",
            Values::U8(_) => "U8",
        }
    }

    /// All elements as double precision, in which each of the types but very large integers is exact.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Values::F32(values) => values.iter().copied().map(f64::from).collect(),
            Values::F64(values) => values.clone(),
            Values::I64(values) => values.iter().map(|&value| value as f64).collect(),
            Values::U8(values) => values.iter().copied().map(f64::from).collect(),
        }
    }
}

/// A tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its dimensions; none for a scalar.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Values,
}

impl Tensor {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A case: a problem and its solution.
#[derive(Debug, Clone)]
pub struct CaseFile {
    path: PathBuf,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

impl CaseFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, else those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(Error::File { path: path.to_owned(), reason: format!("larger than {LARGEST_FILE} bytes") });
        }
        Self::parse(path, &bytes)
    }

    /// Takes a file apart that has been read from `path`.
    ///
    /// # Errors
    /// [`Error::File`] for what is not safetensors, has tensors of another type than the four, or no `kind`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let unusable = |reason: String| Error::File { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| unusable(error.to_string()))?;
        let contents = SafeTensors::deserialize(bytes).map_err(|error| unusable(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if !metadata.contains_key("kind") {
            return Err(unusable("no kind in the metadata".to_owned()));
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in contents.iter() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(elements(data, f32::from_le_bytes)),
                Dtype::F64 => Values::F64(elements(data, f64::from_le_bytes)),
                Dtype::I64 => Values::I64(elements(data, i64::from_le_bytes)),
                Dtype::U8 => Values::U8(data.to_vec()),
                other => return Err(unusable(format!("{name}: type {other}, expected F32, F64, I64 or U8"))),
            };
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
        }
        Ok(Self { path: path.to_owned(), metadata, tensors })
    }

    /// The file's name without folder and extension.
    pub fn case(&self) -> String {
        case_name(&self.path)
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> &str {
        self.metadata.get("kind").map_or("", String::as_str)
    }

    /// Every `out.` and `grad.` tensor, in order of names.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        tensors.filter(|(name, _)| name.starts_with("out.") || name.starts_with("grad."))
    }

    /// A tensor, where there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The file cannot be used.
    pub(super) fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), reason: reason.into() }
    }

    fn require(&self, name: &str) -> Result<&Tensor> {
        self.tensor(name).ok_or_else(|| self.unusable(format!("no tensor {name}")))
    }

    fn require_shape(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.require(name)?;
        if tensor.shape != shape {
            return Err(Error::shape(name, format!("{shape:?}"), format!("{:?}", tensor.shape)));
        }
        Ok(tensor)
    }

    fn wrong_type(&self, name: &str, expected: &str, tensor: &Tensor) -> Error {
        self.unusable(format!("{name}: type {}, expected {expected}", tensor.values.name()))
    }

    /// The input `in.NAME.f32`, which has to have exactly this shape.
    ///
    /// # Errors
    /// No such tensor, another type, another shape.
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let name = format!("in.{name}.f32");
        let tensor = self.require_shape(&name, shape)?;
        match &tensor.values {
            Values::F32(values) => Ok(values),
            _ => Err(self.wrong_type(&name, "F32", tensor)),
        }
    }

    /// The input `in.NAME.f32`, whose elements are flags, each 0 or 1.
    ///
    /// # Errors
    /// Those of [`f32s`](Self::f32s); another value.
    pub fn f32_flags(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let flags = self.f32s(name, shape)?;
        match flags.iter().position(|&flag| flag != 0.0 && flag != 1.0) {
            None => Ok(flags),
            Some(i) => Err(Error::value(format!("in.{name}.f32[{i}]"), "0 or 1", flags[i])),
        }
    }

    /// The input `in.NAME` of indices, each below `below`.
    ///
    /// # Errors
    /// No such tensor, another type, another shape, an index out of range.
    pub fn indices(&self, name: &str, shape: &[usize], below: usize) -> Result<Vec<u32>> {
        let name = format!("in.{name}");
        let tensor = self.require_shape(&name, shape)?;
        let Values::I64(values) = &tensor.values else { return Err(self.wrong_type(&name, "I64", tensor)) };
        let index = |(i, &value): (usize, &i64)| {
            let index = u32::try_from(value).ok().filter(|&index| (index as usize) < below);
            index.ok_or_else(|| Error::value(format!("{name}[{i}]"), format!("an index below {below}"), value))
        };
        values.iter().enumerate().map(index).collect()
    }

    /// The input `in.NAME` of flags, each 0 or 1.
    ///
    /// # Errors
    /// No such tensor, another type, another shape, another value.
    pub fn flags(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>> {
        let name = format!("in.{name}");
        let tensor = self.require_shape(&name, shape)?;
        let Values::U8(values) = &tensor.values else { return Err(self.wrong_type(&name, "U8", tensor)) };
        let flag = |(i, &value): (usize, &u8)| match value {
            0 | 1 => Ok(u32::from(value)),
            _ => Err(Error::value(format!("{name}[{i}]"), "0 or 1", value)),
        };
        values.iter().enumerate().map(flag).collect()
    }

    /// The shape of the input `in.NAME.f32`.
    ///
    /// # Errors
    /// No such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.require(&format!("in.{name}.f32"))?.shape)
    }

    /// Whether there is an input `in.NAME.f32`.
    pub fn has(&self, name: &str) -> bool {
        self.tensor(&format!("in.{name}.f32")).is_some()
    }

    /// A hyper-parameter as it is written.
    ///
    /// # Errors
    /// No such hyper-parameter.
    pub fn text(&self, name: &str) -> Result<&str> {
        let text = self.metadata.get(name).map(String::as_str);
        text.ok_or_else(|| self.unusable(format!("no hyper-parameter {name} in the metadata")))
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Error::value(name, expected, text))
    }

    /// A hyper-parameter that is a finite number.
    ///
    /// # Errors
    /// No such hyper-parameter, or it is something else.
    pub fn number(&self, name: &str) -> Result<f64> {
        let number: f64 = self.parsed(name, "a number")?;
        if number.is_finite() { Ok(number) } else { Err(Error::value(name, "a finite number", number)) }
    }

    /// A hyper-parameter that is a number, or None where it says `none` (as Python writes it).
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        if self.text(name)?.eq_ignore_ascii_case("none") { Ok(None) } else { self.number(name).map(Some) }
    }

    /// A hyper-parameter that is a size.
    ///
    /// # Errors
    /// No such hyper-parameter, or it is something else.
    pub fn size(&self, name: &str) -> Result<usize> {
        self.parsed(name, "a whole number >= 0")
    }

    /// A hyper-parameter that is 0 or 1.
    ///
    /// # Errors
    /// No such hyper-parameter, or it is something else.
    pub fn switch(&self, name: &str) -> Result<bool> {
        match self.text(name)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(Error::value(name, "0 or 1", other)),
        }
    }

    /// A hyper-parameter that is a comma-separated list of sizes, which may be empty.
    ///
    /// # Errors
    /// No such hyper-parameter, or it is something else.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let text = self.text(name)?;
        let size = |part: &str| part.trim().parse().map_err(|_| Error::value(name, "sizes separated by commas", text));
        if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(size).collect() }
    }

    /// One of several words.
    ///
    /// # Errors
    /// No such hyper-parameter, or another word.
    pub fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|&(_, choice)| choice);
        found.ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
            Error::value(name, format!("one of {}", words.join(", ")), text)
        })
    }

    /// PyTorch's own deviation in single precision, where the file has it.
    ///
    /// # Errors
    /// It is not a number >= 0: an infinite yardstick would let everything pass.
    pub fn yardstick(&self, prefix: &str, tensor: &str) -> Result<Option<f64>> {
        let name = format!("{prefix}:{tensor}");
        if !self.metadata.contains_key(&name) {
            return Ok(None);
        }
        let yardstick = self.number(&name)?;
        if yardstick < 0.0 {
            return Err(Error::value(name, "a number >= 0", yardstick));
        }
        Ok(Some(yardstick))
    }
}

/// The name of the case in a file of this path.
pub fn case_name(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn elements<T, const BYTES: usize>(data: &[u8], from_le_bytes: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks::<BYTES>().0.iter().map(|&bytes| from_le_bytes(bytes)).collect()
}
