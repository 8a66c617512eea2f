//! Every shader file, looked at without a GPU.

use naga::back::{hlsl, msl};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use ppo_kernels::gpu::{Indices, bindings};
use ppo_kernels::kernels::{ShaderInfo, shaders};

fn parse(info: &ShaderInfo) -> naga::Module {
    naga::front::wgsl::parse_str(info.shader.source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string_with_path(info.shader.source, info.shader.name)))
}

/// None beyond what WebGPU gives everybody, the portable tier, but for products on tensor cores, which are asked for by name.
fn capabilities(info: &ShaderInfo) -> Capabilities {
    if info.shader.name.starts_with("linear/tensor_core") {
        Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP
    } else {
        Capabilities::empty()
    }
}

/// Hands `act` every entry point with each of its sets of constants.
fn for_each_specialisation(act: impl Fn(&ShaderInfo, &str, &naga::Module, &ModuleInfo)) {
    for info in shaders() {
        let module = parse(&info);
        let validated = Validator::new(ValidationFlags::all(), capabilities(&info))
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {}", info.shader.name, error.emit_to_string(info.shader.source)));
        for (entry, specialisations) in info.entries {
            assert!(!specialisations.is_empty(), "{}::{entry} lists no specialisation", info.shader.name);
            for constants in *specialisations {
                let constants = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
                let stage = Some((naga::ShaderStage::Compute, *entry));
                let (special, special_info) =
                    naga::back::pipeline_constants::process_overrides(&module, &validated, stage, &constants)
                        .unwrap_or_else(|error| panic!("{}::{entry}: {error}", info.shader.name));
                act(&info, entry, &special, &special_info);
            }
        }
    }
}

#[test]
fn every_specialisation_validates() {
    for_each_specialisation(|info, entry, special, _| {
        Validator::new(ValidationFlags::all(), capabilities(info))
            .validate(special)
            .unwrap_or_else(|error| panic!("{}::{entry}: {error:?}", info.shader.name));
    });
}

/// What Metal and D3D12 compile is made of these by naga, which has no words for some of WGSL. Vulkan's SPIR-V the other tests make and run.
#[test]
fn every_specialisation_can_be_said_in_metals_and_d3d12s_languages() {
    let stage = naga::ShaderStage::Compute;
    for_each_specialisation(|info, entry, special, special_info| {
        let options = msl::Options { lang_version: (2, 3), fake_missing_bindings: true, ..msl::Options::default() };
        let pipeline = msl::PipelineOptions { entry_point: Some((stage, entry.to_owned())), ..msl::PipelineOptions::default() };
        let (_, translated) = msl::write_string(special, special_info, &options, &pipeline)
            .unwrap_or_else(|error| panic!("{}::{entry}: {error}", info.shader.name));
        assert!(matches!(&translated.entry_point_names[..], [Ok(_)]), "{}::{entry}", info.shader.name);

        let options =
            hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, fake_missing_bindings: true, ..hlsl::Options::default() };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, entry.to_owned())) };
        let translated = hlsl::Writer::new(&mut String::new(), &options, &pipeline).write(special, special_info, None);
        // D3D12 offers no tensor cores, and HLSL has no words for their matrices.
        if capabilities(info).contains(Capabilities::COOPERATIVE_MATRIX) {
            assert!(translated.is_err(), "{}::{entry}", info.shader.name);
            return;
        }
        let translated = translated.unwrap_or_else(|error| panic!("{}::{entry}: {error}", info.shader.name));
        assert!(matches!(&translated.entry_point_names[..], [Ok(_)]), "{}::{entry}", info.shader.name);
    });
}

/// Where invocations write the elements of one vector, Metal may lose some: it reads, changes and writes the whole of it. Whether several do
/// is not seen here, so none may.
#[test]
fn no_element_of_a_vector_in_a_storage_buffer_is_written_by_itself() {
    for info in shaders() {
        let found = vector_elements_stored(&parse(&info), capabilities(&info));
        assert_eq!(found, Vec::<String>::new(), "{}", info.shader.name);
    }
    let bound = "@group(0) @binding(0) var<storage, read_write> rows: array<vec4<f32>>;";
    for (stored, found) in
        [("rows[i][i % 4u] = 1.0;", 1), ("if i > 7u { rows[i].y += 1.0; }", 1), ("rows[i] = vec4<f32>(1.0);", 0)]
    {
        let text =
            format!("{bound} @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {{ {stored} }}");
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        assert_eq!(vector_elements_stored(&module, Capabilities::empty()).len(), found, "{stored}");
    }
}

fn vector_elements_stored(module: &naga::Module, capabilities: Capabilities) -> Vec<String> {
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(module).unwrap();
    let mut found = Vec::new();
    let entries = module.entry_points.iter().enumerate().map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
    for (function, info) in module.functions.iter().map(|(handle, function)| (function, &info[handle])).chain(entries) {
        for_each_store(&function.body, &mut |pointer| {
            use naga::{AddressSpace, Expression, TypeInner};
            let (Expression::Access { base, .. } | Expression::AccessIndex { base, .. }) = function.expressions[pointer] else {
                return;
            };
            let of_vector = match *info[base].ty.inner_with(&module.types) {
                TypeInner::Pointer { base, space: AddressSpace::Storage { .. } } => {
                    matches!(module.types[base].inner, TypeInner::Vector { .. })
                }
                TypeInner::ValuePointer { size, space: AddressSpace::Storage { .. }, .. } => size.is_some(),
                _ => false,
            };
            if of_vector {
                found.push(function.name.clone().unwrap_or_default());
            }
        });
    }
    found
}

fn for_each_store(block: &naga::Block, act: &mut impl FnMut(naga::Handle<naga::Expression>)) {
    use naga::Statement;
    for statement in block {
        match statement {
            Statement::Store { pointer, .. } => act(*pointer),
            Statement::Block(inner) => for_each_store(inner, act),
            Statement::If { accept, reject, .. } => [accept, reject].into_iter().for_each(|inner| for_each_store(inner, act)),
            Statement::Loop { body, continuing, .. } => {
                [body, continuing].into_iter().for_each(|inner| for_each_store(inner, act));
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| for_each_store(&case.body, act)),
            _ => {}
        }
    }
}

#[test]
fn every_entry_point_is_listed_and_within_the_default_limits() {
    for info in shaders() {
        let module = parse(&info);
        let validated = Validator::new(ValidationFlags::all(), capabilities(&info)).validate(&module).unwrap();
        let mut in_file: Vec<&str> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
        let mut listed: Vec<&str> = info.entries.iter().map(|(name, _)| *name).collect();
        in_file.sort_unstable();
        listed.sort_unstable();
        assert_eq!(in_file, listed, "{}", info.shader.name);
        for (index, entry) in module.entry_points.iter().enumerate() {
            let uses = validated.get_entry_point(index);
            let storage = module.global_variables.iter().filter(|(handle, variable)| {
                !uses[*handle].is_empty() && matches!(variable.space, naga::AddressSpace::Storage { .. })
            });
            assert!(storage.count() <= 8, "{}::{}: more than 8 storage buffers", info.shader.name, entry.name);
        }
    }
}

#[test]
fn parameter_structs_have_the_layout_that_naga_reflects() {
    for info in shaders() {
        let module = parse(&info);
        for (name, size, fields) in info.params {
            let (_, found) = module
                .types
                .iter()
                .find(|(_, t)| t.name.as_deref() == Some(name))
                .unwrap_or_else(|| panic!("{} has no struct {name}", info.shader.name));
            let naga::TypeInner::Struct { members, span } = &found.inner else { panic!("{name} is no struct") };
            // The uniform's size is that of the struct, rounded up to 16 bytes: where there are vectors, so is naga's.
            assert!([*size, size.next_multiple_of(16)].contains(&(*span as usize)), "size of {name}: {size}, {span}");
            let reflected: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap(), m.offset as usize)).collect();
            let declared: Vec<_> = fields.iter().map(|f| (f.name, f.offset)).collect();
            assert_eq!(declared, reflected, "{name}");
        }
    }
}

#[test]
fn a_header_says_why_indices_are_proven() {
    for info in shaders() {
        let preconditions =
            info.shader.source.split("// Preconditions").nth(1).and_then(|rest| rest.split("// Determinism").next());
        let argued = preconditions.is_some_and(|text| text.contains("Indices proven: "));
        assert_eq!(argued, info.shader.indices == Indices::Proven, "{}", info.shader.name);
    }
}

/// No kernel, but what several of them share.
const ELEMENTARY: &str = "elementary";

#[test]
fn elementary_functions_are_written_once() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::fs::read_to_string(root.join("shaders").join(ELEMENTARY).with_extension("wgsl")).unwrap();
    let functions: Vec<&str> = shared.lines().filter_map(|line| line.strip_prefix("fn ")?.split('(').next()).collect();
    assert!(functions.len() >= 5, "{functions:?}");
    // e^x by its series, wherever: the high part of ln 2.
    let sharing: Vec<_> = shaders().into_iter().filter(|info| info.shader.source.contains("0.693359375")).collect();
    assert!(sharing.len() >= 5, "{}", sharing.len());
    for info in sharing {
        assert!(info.shader.source.contains(&shared), "{} has another copy", info.shader.name);
        assert_eq!(info.shader.source.matches("0.693359375").count(), 1, "{} has a second copy", info.shader.name);
    }
}

#[test]
fn every_kernel_has_all_its_files() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let stems = |folder: &str, extension: &str| {
        let mut stems: Vec<String> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == extension))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        stems.sort_unstable();
        stems
    };
    let mut kernels = stems("shaders", "wgsl");
    kernels.retain(|stem| stem != ELEMENTARY);
    assert!(kernels.len() >= 9, "{kernels:?}");
    for folder in ["src/kernels", "src/reference", "src/cpu", "src/backend", "src/operations", "tests"] {
        let there = stems(folder, "rs");
        for kernel in &kernels {
            // Its twin, and what verify compares it with, is the composition of the others.
            let is_composed = kernel == "actor_critic" && ["src/reference", "src/operations"].contains(&folder);
            assert!(there.contains(kernel) || is_composed, "{kernel} has no file in {folder}");
        }
    }
    let mut named: Vec<&str> = shaders().iter().map(|info| info.shader.name.split('/').next().unwrap()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, kernels, "kernels::shaders() lists every file");
}

/// Kernels ask for a shader's buffers by name, which [`bindings`] reads in its text.
#[test]
fn bindings_are_found_by_name_as_naga_finds_them() {
    let reflected = |module: &naga::Module| -> std::collections::BTreeSet<(u32, String)> {
        let variables = module.global_variables.iter().map(|(_, variable)| variable);
        variables.filter_map(|variable| Some((variable.binding?.binding, variable.name.clone()?))).collect()
    };
    let read = |source: &str| bindings(source).map(|(number, name)| (number, name.to_owned())).collect();
    for info in shaders() {
        assert_eq!(reflected(&parse(&info)), read(info.shader.source), "{}", info.shader.name);
    }
    let text = "@group(0) @binding(3) var<storage, read> x: array<u32>;";
    assert_ne!(reflected(&naga::front::wgsl::parse_str(text).unwrap()), read(&text.replace('3', "2")));
}
