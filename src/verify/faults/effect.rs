//! What a changed text means for the pipelines that are made of it.

use wgpu::naga;

use naga::back::pipeline_constants::process_overrides;
use naga::{Block, Expression, Function, Handle, Literal, Module, Statement};

use crate::kernels::ShaderInfo;

/// What a change of a shader's text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The text is no WGSL any more, or some specialisation of it is none.
    DoesNotCompile,
    /// Every pipeline runs as before: no specialisation runs the text, or it means the same.
    None,
    /// Some pipeline runs something else.
    Some,
}

/// Compares the pipelines of `changed`, in every specialisation of every entry point, with those of the shader's own text.
pub(super) fn effect(info: &ShaderInfo, changed: &str) -> Effect {
    let (Some(own), Some(changed)) = (Text::new(info.shader.source), Text::new(changed)) else { return Effect::DoesNotCompile };
    let mut effect = Effect::None;
    for (entry, specialisations) in info.entries {
        for constants in *specialisations {
            let Some(special) = changed.specialised(entry, constants) else { return Effect::DoesNotCompile };
            // One that differs is enough; whether the others compile is still to be seen.
            if effect == Effect::None && own.specialised(entry, constants).map(essence) != Some(essence(special)) {
                effect = Effect::Some;
            }
        }
    }
    effect
}

struct Text {
    module: Module,
    info: naga::valid::ModuleInfo,
}

impl Text {
    fn new(source: &str) -> Option<Self> {
        let module = naga::front::wgsl::parse_str(source).ok()?;
        let info = validate(&module)?;
        Some(Self { module, info })
    }

    fn specialised(&self, entry: &str, constants: &[(&str, f64)]) -> Option<Module> {
        let constants = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let stage = Some((naga::ShaderStage::Compute, entry));
        let (special, _) = process_overrides(&self.module, &self.info, stage, &constants).ok()?;
        validate(&special)?;
        Some(special.into_owned())
    }
}

fn validate(module: &Module) -> Option<naga::valid::ModuleInfo> {
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all()).validate(module).ok()
}

/// A specialised module without what it does not run, and without names and places in the text.
fn essence(mut module: Module) -> String {
    let Module { constants, global_expressions, functions, entry_points, .. } = &mut module;
    let functions = functions.iter_mut().map(|(_, function)| function);
    for function in functions.chain(entry_points.iter_mut().map(|entry| &mut entry.function)) {
        let Function { body, expressions, named_expressions, .. } = function;
        named_expressions.clear();
        let literal = |expression: Handle<Expression>| match expressions[expression] {
            Expression::Literal(literal) => Some(literal),
            Expression::Constant(constant) => match global_expressions[constants[constant].init] {
                Expression::Literal(literal) => Some(literal),
                _ => None,
            },
            _ => None,
        };
        prune(body, &literal);
    }
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    format!("{module:?}")
}

/// Leaves out the sides of branches on constants that are not taken, and what stands behind an end. Whether the block ends with one.
fn prune(block: &mut Block, literal: &impl Fn(Handle<Expression>) -> Option<Literal>) -> bool {
    let (mut kept, mut ends) = (Vec::new(), false);
    for mut statement in std::mem::take(block).span_into_iter().map(|(statement, _)| statement) {
        ends = match &mut statement {
            Statement::Block(inner) => prune(inner, literal),
            Statement::If { condition, accept, reject } => match literal(*condition) {
                Some(Literal::Bool(taken)) => {
                    let mut taken = std::mem::take(if taken { accept } else { reject });
                    let ends = prune(&mut taken, literal);
                    statement = Statement::Block(taken);
                    ends
                }
                _ => prune(accept, literal) & prune(reject, literal),
            },
            Statement::Switch { selector, cases } => {
                prune_switch(literal(*selector), cases);
                for case in cases {
                    prune(&mut case.body, literal);
                }
                false
            }
            Statement::Loop { body, continuing, .. } => {
                prune(body, literal);
                prune(continuing, literal);
                false
            }
            Statement::Return { .. } | Statement::Break | Statement::Continue | Statement::Kill => true,
            _ => false,
        };
        kept.push(statement);
        if ends {
            break;
        }
    }
    *block = Block::from_vec(kept);
    ends
}

/// Leaves only the case that is taken, where that is known. No case of WGSL falls through into the next.
fn prune_switch(selector: Option<Literal>, cases: &mut Vec<naga::SwitchCase>) {
    let value = match selector {
        Some(Literal::U32(value)) => naga::SwitchValue::U32(value),
        Some(Literal::I32(value)) => naga::SwitchValue::I32(value),
        _ => return,
    };
    if cases.iter().any(|case| case.fall_through) {
        return;
    }
    let taken = cases.iter().position(|case| case.value == value);
    let taken = taken.or_else(|| cases.iter().position(|case| case.value == naga::SwitchValue::Default));
    if let Some(taken) = taken {
        cases.swap(0, taken);
        cases.truncate(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Indices, Shader};

    const TEXT: &str = "
        override KIND: u32 = 0u;
        override WIDTH: u32 = 1u;
        override LANES: u32 = 1u;
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        fn unused(a: f32) -> f32 { return a * 1.5; }
        fn chosen(a: f32) -> f32 {
            switch KIND {
                case 1u: { return a * 2.0; }
                case 2u: { return a * 3.0; }
                default: { return a * 4.0; }
            }
        }
        fn summed(a: f32) -> f32 {
            if LANES == 1u {
                return a;
            }
            return a * 5.0;
        }
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            if id.x < WIDTH {
                x[id.x] = chosen(summed(x[id.x]));
            }
        }
    ";

    #[test]
    fn only_what_some_specialisation_runs_has_an_effect() {
        let info = ShaderInfo {
            shader: Shader { name: "small", source: TEXT, indices: Indices::Checked },
            params: &[],
            entries: &[("main", &[&[("KIND", 1.0), ("WIDTH", 8.0)], &[("KIND", 3.0), ("WIDTH", 9.0)]])],
        };
        for (from, to, expected) in [
            ("a * 1.5", "a + 1.5", Effect::None),
            ("a * 2.0", "a + 2.0", Effect::Some),
            ("a * 3.0", "a + 3.0", Effect::None),
            ("a * 4.0", "a + 4.0", Effect::Some),
            ("a * 5.0", "a + 5.0", Effect::None),
            ("LANES == 1u", "LANES != 1u", Effect::Some),
            ("LANES == 1u", "LANES >= 1u", Effect::None),
            ("LANES: u32 = 1u", "LANES: u32 = 2u", Effect::Some),
            ("WIDTH: u32 = 1u", "WIDTH: u32 = 2u", Effect::None),
            ("id.x < WIDTH", "id.x <= WIDTH", Effect::Some),
            ("id.x < WIDTH", "id.x + WIDTH", Effect::DoesNotCompile),
            ("a * 3.0", "a * 3u", Effect::DoesNotCompile),
            ("fn unused", "// a comment\n        fn unused", Effect::None),
        ] {
            assert!(TEXT.contains(from), "{from}");
            assert_eq!(effect(&info, &TEXT.replace(from, to)), expected, "{from} to {to}");
        }
    }
}
