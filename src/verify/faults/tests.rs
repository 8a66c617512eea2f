use std::collections::HashSet;

use super::*;

/// A comment on the first line: 1u + 2u < 3u.
const TEXT: &str = "// A comment: a + b < 1u, workgroupBarrier();
override WIDTH: u32 = 4u;
override SIDE: u32 = 2u * WIDTH;
const SCALE = 0.5;
const UNUSED = 7u;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
var<workgroup> sums: array<f32, 64u * 2u>;
/* a block /* in a block */ a - b; */
fn least(a: f32, b: f32) -> f32 {
    return min(a, -b) * SCALE; // max(a, b)
}
fn unused(a: u32) -> bool {
    return a == 1u;
}
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var i = local; i < SIDE && true; i += 64u) {
        sums[i] = least(x[i].x, 1e-3);
    }
    workgroupBarrier();
    if local >= 0x0fu {
        x[local] -= vec4<f32>(sums[local]);
    }
}
";

#[test]
fn places_are_found_outside_comments_types_and_attributes() {
    let tokens = text::tokens(TEXT);
    let found: Vec<(usize, &str, String)> = change::changes(TEXT, &tokens)
        .into_iter()
        .map(|(_, Change { start, end, to })| (1 + TEXT[..start].matches('\n').count(), &TEXT[start..end], to))
        .collect();
    let expected = [
        (2, "4u", "5u"),
        (3, "2u", "3u"),
        (3, "*", "+"),
        (4, "0.5", "1.0"),
        (5, "7u", "8u"),
        (10, "min", "max"),
        (10, "*", "+"),
        (13, "==", "!="),
        (13, "1u", "2u"),
        (17, "<", "<="),
        (17, "&&", "||"),
        (17, "true", "false"),
        (17, "+=", "-="),
        (17, "64u", "65u"),
        (18, "1e-3", "0.002"),
        (20, "workgroupBarrier()", ""),
        (21, ">=", ">"),
        (21, "0x0fu", "0x10u"),
        (22, "-=", "+="),
    ];
    assert_eq!(found, expected.map(|(line, from, to)| (line, from, to.to_owned())));
}

#[test]
fn items_are_known_by_name() {
    let tokens = text::tokens(TEXT);
    let items = text::items(&tokens);
    let names: Vec<_> = items.iter().map(|item| item.name).collect();
    let expected = ["WIDTH", "SIDE", "SCALE", "UNUSED", "x", "sums", "least", "unused", "main"];
    assert_eq!(names, expected);
}

#[test]
fn constants_change_within_their_type() {
    let changed = |number: &'static str| change::changes(number, &text::tokens(number)).pop().map(|(_, change)| change.to);
    for (from, to) in [
        ("0u", "1u"),
        ("4294967295u", "0u"),
        ("3", "4"),
        ("2i", "3i"),
        ("0.0", "1.0"),
        ("1.5f", "3.0f"),
        ("2.5e-7", "5e-7"),
        ("1h", "2.0h"),
        ("0xffffffffu", "0x0u"),
    ] {
        assert_eq!(changed(from).as_deref(), Some(to), "{from}");
    }
}

#[test]
fn a_fault_says_where_it_is_and_changes_nothing_else() {
    let faults = faults();
    assert!(faults.len() > 2000, "{}", faults.len());
    let mut known = HashSet::new();
    for fault in &faults {
        assert!(known.insert((fault.shader, fault.start())), "{fault} twice");
        let text = fault.text();
        assert!(text != fault.source && text.len().abs_diff(fault.source.len()) < 40, "{fault}");
        // As whoever looks it up will find it.
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(fault.file);
        let file = std::fs::read_to_string(path).unwrap();
        let line = file.lines().nth(fault.line - 1).unwrap();
        assert_eq!(line.trim(), fault.place.replace(['«', '»'], ""), "{fault}");
        assert!(!line.trim_start().starts_with("//"), "{fault}");
    }
    // Shared text has places in each shader that it is part of.
    let of = |file: &str, shader: &str| faults.iter().filter(|fault| fault.file == file && fault.shader == shader).count();
    assert!(of("elementary.wgsl", "linear") > 0 && of("elementary.wgsl", "policy/gaussian") > 0);
    assert_eq!(of("elementary.wgsl", "gather"), 0);
    assert!(faults.iter().any(|fault| fault.to.is_empty() && fault.place.contains("«workgroupBarrier()»")));
}

#[test]
fn the_same_seed_draws_the_same_faults_and_no_fault_twice() {
    let of_gather = || faults().into_iter().filter(|fault| fault.shader == "gather").collect::<Vec<_>>();
    let all = of_gather();
    let drawn = draw(of_gather(), 10, 1).unwrap();
    assert_eq!(drawn.faults, draw(of_gather(), 10, 1).unwrap().faults);
    assert_ne!(drawn.faults, draw(of_gather(), 10, 2).unwrap().faults);
    assert!(drawn.faults.iter().all(|fault| fault.effect() == Effect::Some));
    let different: HashSet<usize> = drawn.faults.iter().map(Fault::start).collect();
    assert_eq!(different.len(), 10);
    let error = draw(of_gather(), all.len() + 1, 1).unwrap_err();
    assert!(error.to_string().contains("planted faults: expected at most"), "{error}");
}

#[test]
fn every_explanation_is_of_one_place() {
    let faults = faults();
    for explained in explained::EXPLAINED {
        let mut shaders = HashSet::new();
        let of: Vec<&Fault> = faults.iter().filter(|fault| explained.is_of(fault)).collect();
        assert!(!of.is_empty(), "there is no place {explained:?}");
        assert!(of.iter().all(|fault| shaders.insert(fault.shader)), "{explained:?} is of several places");
        assert!(explained.reason.len() > 20, "{explained:?}");
    }
    // What is not listed has no explanation.
    assert!(faults.iter().filter(|fault| fault.explanation().is_some()).count() < faults.len() / 10);
}

#[test]
fn every_shader_is_run_by_a_variant() {
    for info in shaders() {
        assert!(!variants_of(info.shader.name).1.is_empty(), "{}", info.shader.name);
    }
    let names = |shader| variants_of(shader).1.iter().map(|variant| variant.name).collect::<Vec<_>>();
    assert_eq!(names("actor_critic/by_layer"), ["by layer"]);
    assert!(names("surrogate").len() > 2 && names("linear/tensor_core_8").contains(&"fast"));
    assert!(names("unknown").is_empty());
}
