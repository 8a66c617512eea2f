//! What a case is computed from: inputs and hyper-parameters, checked as they are asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::str::FromStr;

use super::file::{CaseFile, Tensor, Values};
use crate::error::{Error, Result};

/// Metadata that is for people.
const DESCRIPTIVE: [&str; 6] = ["kind", "formula", "scalar", "seed", "generator", "torch"];

/// The inputs of a file, and which of them have been asked for.
pub(super) struct Inputs<'a> {
    file: &'a CaseFile,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Inputs<'a> {
    pub fn new(file: &'a CaseFile) -> Self {
        Self { file, asked: RefCell::default() }
    }

    /// Inputs and metadata that nobody asked for.
    pub fn unused(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let is_double = |name: &str| self.file.tensor(&format!("{name}.f32")).is_some();
        let inputs = self.file.names().filter(|name| name.starts_with("in.") && !is_double(name));
        let is_descriptive =
            |name: &str| DESCRIPTIVE.contains(&name) || name.starts_with("f32err:") || name.starts_with("f32abs:");
        let metadata = self.file.hyper_parameters().filter(|name| !is_descriptive(name));
        inputs.chain(metadata).filter(|&name| !asked.contains(name)).map(str::to_owned).collect()
    }

    /// Whether the file has a solution under one of these names. What only other solutions need may be missing.
    pub fn wants(&self, solutions: &[&str]) -> bool {
        solutions.iter().any(|name| self.file.tensor(name).is_some())
    }

    /// The file cannot be used.
    pub fn unusable(&self, reason: impl Into<String>) -> Error {
        self.file.unusable(reason)
    }

    fn require(&self, name: &str) -> Result<&'a Tensor> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.file.tensor(name).ok_or_else(|| self.unusable(format!("no tensor {name}")))
    }

    fn require_shape(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor> {
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
    /// No such tensor, another type, another shape; a NaN; another number than in `in.NAME`, where there is such a tensor.
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        let name = format!("in.{name}.f32");
        let tensor = self.require_shape(&name, shape)?;
        let Values::F32(values) = &tensor.values else { return Err(self.wrong_type(&name, "F32", tensor)) };
        if let Some(i) = values.iter().position(|value| value.is_nan()) {
            return Err(Error::value(format!("{name}[{i}]"), "a number", values[i]));
        }
        let in_double = name.trim_end_matches(".f32");
        let Some(twin) = self.file.tensor(in_double) else { return Ok(values) };
        if twin.shape != shape {
            return Err(Error::shape(in_double, format!("{shape:?}"), format!("{:?}", twin.shape)));
        }
        let Values::F64(doubles) = &twin.values else { return Err(self.wrong_type(in_double, "F64", twin)) };
        match values.iter().zip(doubles).position(|(&value, &double)| f64::from(value) != double) {
            None => Ok(values),
            Some(i) => {
                Err(Error::value(format!("{name}[{i}]"), format!("the number in the F64 tensor, {}", doubles[i]), values[i]))
            }
        }
    }

    /// The input `in.NAME.f32`, whose elements are flags, each 0 or 1.
    ///
    /// # Errors
    /// Those of [`f32s`](Self::f32s); another value.
    pub fn f32_flags(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
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
    pub fn shape(&self, name: &str) -> Result<&'a [usize]> {
        Ok(&self.require(&format!("in.{name}.f32"))?.shape)
    }

    /// Whether there is an input `in.NAME.f32`.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(&format!("in.{name}.f32")).is_some()
    }

    /// A hyper-parameter as it is written, where there is one.
    pub fn optional_text(&self, name: &str) -> Option<&'a str> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.file.hyper_parameter(name)
    }

    /// A hyper-parameter as it is written.
    ///
    /// # Errors
    /// No such hyper-parameter.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        self.optional_text(name).ok_or_else(|| self.unusable(format!("no hyper-parameter {name} in the metadata")))
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

    /// A hyper-parameter that is a number, or infinite where it says `inf` or `none`.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn bound(&self, name: &str) -> Result<f64> {
        match self.text(name)? {
            "inf" => Ok(f64::INFINITY),
            _ => Ok(self.optional_number(name)?.unwrap_or(f64::INFINITY)),
        }
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
}
