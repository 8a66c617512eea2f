use super::*;
use crate::gpu::{Indices, Shader};

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

fn info(source: &'static str) -> ShaderInfo {
    ShaderInfo {
        shader: Shader { name: "small", source, indices: Indices::Checked },
        params: &[],
        entries: &[("main", &[&[("WIDTH", 4.0)], &[("WIDTH", 8.0)]])],
    }
}

#[test]
fn places_are_found_where_text_is_used() {
    // The test's text is no file of the crate's: as if it were.
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
fn items_that_no_entry_point_uses_are_known() {
    let tokens = text::tokens(TEXT);
    let items = text::items(&tokens);
    let names: Vec<_> = items.iter().map(|item| item.name).collect();
    let expected = ["WIDTH", "SIDE", "SCALE", "UNUSED", "x", "sums", "least", "unused", "main"];
    assert_eq!(names, expected);
    let reached = text::reached(&tokens, &items, "main");
    let mut reached: Vec<_> = reached.into_iter().map(|i| items[i].name).collect();
    reached.sort_unstable();
    assert_eq!(reached, ["SCALE", "SIDE", "WIDTH", "least", "main", "sums", "x"]);
    assert!(text::reached(&tokens, &items, "nothing").is_empty());
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
fn whether_a_changed_text_compiles_is_known() {
    assert!(compiles(&info(TEXT), TEXT));
    for (from, to) in [("workgroupBarrier();", ";"), ("i < SIDE", "i <= SIDE"), ("* SCALE", "+ SCALE")] {
        assert!(compiles(&info(TEXT), &TEXT.replace(from, to)), "{to}");
    }
    for (from, to) in [("i += 64u", "i += 64.0"), ("i < SIDE", "i + SIDE"), ("64u * 2u", "64u - 64u")] {
        assert!(!compiles(&info(TEXT), &TEXT.replace(from, to)), "{to}");
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
    // Shared text has places in each shader that uses it, and in no other.
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
    assert!(drawn.faults.iter().all(Fault::compiles));
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
fn defaults_of_constants_that_every_pipeline_sets_are_no_places() {
    let faults = faults();
    let in_default = |shader: &str, name: &str| faults.iter().any(|fault| fault.shader == shader && fault.item == name);
    assert!(!in_default("actor_critic/by_tile", "KEPT") && in_default("actor_critic/by_tile", "STRIDE"));
    assert!(in_default("gather", "WORKGROUP_SIZE"));
}
