//! Faults planted in the shaders' text, to see whether verification notices them.
//!
//! A [`Fault`] is one change at one place of one shader: an operator, a constant, a barrier, a minimum or a maximum. Text that several shaders
//! share has places in each of them that uses it. [`faults`] lists all, [`draw`] draws some, and [`first_miss`] runs what verifies the shader
//! until something is noticed. A fault may hang or crash a driver, so plant it in a process of its own.

mod change;
mod explained;
mod files;
mod text;

use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wgpu::naga;

use super::variants::{Setting, of_shader};
use super::{Miss, Options, run};
use crate::backend::{Gpu, Precision};
use crate::error::{Error, Result};
use crate::kernels::{ShaderInfo, shaders};
use change::Change;

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

    /// Whether the changed text is WGSL, in every specialisation of every entry point.
    pub fn compiles(&self) -> bool {
        shaders().into_iter().find(|info| info.shader.name == self.shader).is_some_and(|info| compiles(&info, &self.text()))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = if self.to.is_empty() { "nothing" } else { &self.to };
        write!(f, "shaders/{}:{} in {}, {}: {} becomes {to}", self.file, self.line, self.shader, self.item, self.place)
    }
}

fn compiles(info: &ShaderInfo, text: &str) -> bool {
    let Ok(module) = naga::front::wgsl::parse_str(text) else { return false };
    let validate = |module: &naga::Module| {
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all()).validate(module)
    };
    let Ok(valid) = validate(&module) else { return false };
    info.entries.iter().all(|(entry, specialisations)| {
        specialisations.iter().all(|constants| {
            let constants = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let stage = Some((naga::ShaderStage::Compute, *entry));
            let special = naga::back::pipeline_constants::process_overrides(&module, &valid, stage, &constants);
            special.is_ok_and(|(special, _)| validate(&special).is_ok())
        })
    })
}

/// Every fault of every shader, in the order of their text.
pub fn faults() -> Vec<Fault> {
    shaders().iter().flat_map(faults_of).collect()
}

/// The faults of one shader. Text that none of its entry points uses has none, nor has the default of a constant that every pipeline sets.
fn faults_of(info: &ShaderInfo) -> Vec<Fault> {
    let source = info.shader.source;
    let tokens = text::tokens(source);
    let items = text::items(&tokens);
    let reached: Vec<HashSet<usize>> = info.entries.iter().map(|(entry, _)| text::reached(&tokens, &items, entry)).collect();
    let counts = |i: usize| {
        let is_set = |constants: &[(&str, f64)]| constants.iter().any(|(name, _)| *name == items[i].name);
        let mut uses = info.entries.iter().zip(&reached).filter(|(_, reached)| reached.contains(&i));
        uses.any(|((_, specialisations), _)| !specialisations.iter().all(|constants| is_set(constants)))
    };
    let counting: Vec<bool> = (0..items.len()).map(counts).collect();
    let files = files::files_of(source);
    let changes = change::changes(source, &tokens).into_iter().filter_map(|(token, change)| {
        let item = items.iter().position(|item| item.tokens.contains(&token)).filter(|item| counting[*item])?;
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
            item: items[item].name.to_owned(),
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
    /// How many drawn before the last of them do not compile; others stand in their place.
    pub not_compiling: usize,
}

/// Draws `count` of `faults` that compile, without repetition; the same seed draws the same.
///
/// # Errors
/// [`Error::InvalidValue`] where there are fewer.
pub fn draw(mut faults: Vec<Fault>, count: usize, seed: u64) -> Result<Drawn> {
    let all = faults.len();
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = Drawn { faults: Vec::new(), not_compiling: 0 };
    while drawn.faults.len() < count {
        if faults.is_empty() {
            return Err(Error::value("planted faults", format!("at most {} of {all}", drawn.faults.len()), count));
        }
        let fault = faults.swap_remove(generator.random_range(0..faults.len()));
        if fault.compiles() {
            drawn.faults.push(fault);
        } else {
            drawn.not_compiling += 1;
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

/// Runs the variants that use the shader called `shader`, each with all cases of its kernel, up to the first miss. `observe` is told of each
/// variant that passed.
///
/// # Errors
/// [`Error::DeviceLost`]; [`Error::InvalidValue`] for a shader that verification does not run.
pub fn first_miss(
    mut gpu: Gpu,
    shader: &str,
    options: &Options,
    mut observe: impl FnMut(&Setting),
) -> Result<(Gpu, Option<Miss>)> {
    let (kernel, settings) = of_shader(shader);
    if settings.is_empty() {
        return Err(Error::value("shader", "one that verification runs", shader));
    }
    let options = Options { kernels: vec![kernel], stop_at_first_miss: true, ..options.clone() };
    for setting in settings {
        setting.apply(&mut gpu);
        let (back, reports) = run(gpu, &options, |_| {})?;
        if let Some(miss) = reports.into_iter().flat_map(|report| report.misses).next() {
            return Ok((back, Some(miss)));
        }
        observe(setting);
        gpu = back;
    }
    Ok((gpu, None))
}

#[cfg(test)]
mod tests;
