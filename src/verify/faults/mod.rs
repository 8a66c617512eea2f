//! Faults planted in the shaders' text, to see whether verification notices them.
//!
//! A [`Fault`] is one change at one place of one shader: an operator, a constant, a barrier, a minimum or a maximum. Text that several shaders
//! share has places in each of them. [`faults`] lists all, [`draw`] draws some that have an [`Effect`], and [`first_miss`] runs what verifies the shader
//! until something is noticed. A fault may hang or crash a driver, so plant it in a process of its own.

mod change;
mod effect;
mod explained;
mod files;
mod text;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{KERNELS, KernelVariant, Miss, Options, run, variants};
use crate::backend::{Gpu, Precision};
use crate::error::{Error, Result};
use crate::kernels::{ShaderInfo, shaders};
use change::Change;
pub use effect::Effect;

/// A place in a shader's text, and what is changed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The shader's name.
    pub shader: &'static str,
    /// The file below `shaders`.
    pub file: &'static str,
    /// The line in that file, from 1 on.
    pub line: usize,
    /// The function or the declaration that the place is in.
    pub item: String,
    /// The line's text, with what is changed between « and ».
    pub place: String,
    /// What stands there instead.
    pub to: String,
    source: &'static str,
    change: Change,
}

impl Fault {
    /// The first byte that is changed: with the shader's name, which fault this is.
    pub fn start(&self) -> usize {
        self.change.start
    }

    /// The shader's text with the fault in it.
    pub fn text(&self) -> String {
        let Change { start, end, to } = &self.change;
        [&self.source[..*start], to, &self.source[*end..]].concat()
    }

    /// Why the change changes nothing, where that is known.
    pub fn explanation(&self) -> Option<&'static str> {
        explained::EXPLAINED.iter().find(|explained| explained.is_of(self)).map(|explained| explained.reason)
    }

    /// What the change does to the pipelines that are made of the shader.
    pub fn effect(&self) -> Effect {
        let info = shaders().into_iter().find(|info| info.shader.name == self.shader);
        info.map_or(Effect::DoesNotCompile, |info| effect::effect(&info, &self.text()))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = if self.to.is_empty() { "nothing" } else { &self.to };
        write!(f, "shaders/{}:{} in {}, {}: {} becomes {to}", self.file, self.line, self.shader, self.item, self.place)
    }
}

/// Every fault of every shader, in the order of their text.
pub fn faults() -> Vec<Fault> {
    shaders().iter().flat_map(faults_of).collect()
}

fn faults_of(info: &ShaderInfo) -> Vec<Fault> {
    let source = info.shader.source;
    let tokens = text::tokens(source);
    let items = text::items(&tokens);
    let files = files::files_of(source);
    let changes = change::changes(source, &tokens).into_iter().filter_map(|(token, change)| {
        let item = items.iter().find(|item| item.tokens.contains(&token))?;
        let (file, file_start) = files.iter().rev().find(|(_, start)| *start <= change.start)?;
        let line_start = source[..change.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[change.end..].find('\n').map_or(source.len(), |newline| change.end + newline);
        let part = |range: std::ops::Range<usize>| &source[range];
        let place = [
            part(line_start..change.start).trim_start(),
            "«",
            part(change.start..change.end),
            "»",
            part(change.end..line_end).trim_end(),
        ];
        Some(Fault {
            shader: info.shader.name,
            file,
            line: 1 + source[*file_start..change.start].matches('\n').count(),
            item: item.name.to_owned(),
            place: place.concat(),
            to: change.to.clone(),
            source,
            change,
        })
    });
    changes.collect()
}

/// What was drawn.
#[derive(Debug)]
pub struct Drawn {
    /// The faults.
    pub faults: Vec<Fault>,
    /// How many that were drawn do not compile.
    pub not_compiling: usize,
    /// How many that were drawn change no pipeline.
    pub without_effect: usize,
}

/// Draws `count` of `faults` that have an effect, without repetition; the same seed draws the same.
///
/// # Errors
/// [`Error::InvalidValue`] where there are fewer.
pub fn draw(mut faults: Vec<Fault>, count: usize, seed: u64) -> Result<Drawn> {
    let all = faults.len();
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = Drawn { faults: Vec::new(), not_compiling: 0, without_effect: 0 };
    while drawn.faults.len() < count {
        if faults.is_empty() {
            return Err(Error::value("planted faults", format!("at most {} of {all}", drawn.faults.len()), count));
        }
        let fault = faults.swap_remove(generator.random_range(0..faults.len()));
        match fault.effect() {
            Effect::Some => drawn.faults.push(fault),
            Effect::None => drawn.without_effect += 1,
            Effect::DoesNotCompile => drawn.not_compiling += 1,
        }
    }
    Ok(drawn)
}

/// Whether verification runs the shader on this adapter and in this precision.
pub fn runs_on(gpu: &Gpu, shader: &str) -> bool {
    match shader.strip_prefix("linear/tensor_core_") {
        None => true,
        Some(size) => {
            let matrix = gpu.context.cooperative_matrix();
            gpu.precision() != Precision::F32 && matrix.is_ok_and(|matrix| matrix.size.to_string() == size)
        }
    }
}

/// The kernel that a shader belongs to, and the variants that run the shader: only one, where that has its name.
fn variants_of(shader: &str) -> (&'static str, Vec<&'static KernelVariant>) {
    let (kernel, name) = shader.split_once('/').unwrap_or((shader, ""));
    let Some(kernel) = KERNELS.iter().find(|known| **known == kernel) else { return ("", Vec::new()) };
    let named: Vec<_> = variants(kernel).iter().filter(|variant| variant.name == name.replace('_', " ")).collect();
    (kernel, if named.is_empty() { variants(kernel).iter().collect() } else { named })
}

/// Verifies the shader called `shader`: its kernel in the variants that run the shader, up to the first miss. `observe` is told of each variant
/// that passed.
///
/// # Errors
/// [`Error::DeviceLost`]; [`Error::InvalidValue`] for a shader that verification does not run.
pub fn first_miss(
    mut gpu: Gpu,
    shader: &str,
    options: &Options,
    mut observe: impl FnMut(&KernelVariant),
) -> Result<(Gpu, Option<Miss>)> {
    let (kernel, variants) = variants_of(shader);
    if variants.is_empty() {
        return Err(Error::value("shader", "one that verification runs", shader));
    }
    let options = Options { kernels: vec![kernel], stop_at_first_miss: true, ..options.clone() };
    for variant in variants {
        variant.choose(&mut gpu);
        let (back, reports) = run(gpu, &options, |_| {})?;
        if let Some(miss) = reports.into_iter().flat_map(|report| report.misses).next() {
            return Ok((back, Some(miss)));
        }
        observe(variant);
        gpu = back;
    }
    Ok((gpu, None))
}

#[cfg(test)]
mod tests;
