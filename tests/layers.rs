//! Imports run one way: as the picture in ARCHITECTURE.md has them, and without circles among the files of a layer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Allowed imports by module, and the modules that everybody may import, in order: each may import those behind it.
fn picture(text: &str) -> (Graph, Vec<String>) {
    let block = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a picture of the layers");
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (mut allowed, mut base) = (Graph::new(), Vec::new());
    for line in block.lines() {
        match (line.split_once("->"), line.strip_prefix("base:")) {
            // The purpose stands after two spaces.
            (Some((module, rest)), _) => {
                let imports = rest.strip_prefix(' ').and_then(|rest| rest.split("  ").next()).unwrap_or_default();
                allowed.insert(module.trim().to_owned(), names(imports).into_iter().collect());
            }
            (None, Some(rest)) => base = names(rest),
            (None, None) => panic!("{line:?} is neither a layer nor the base"),
        }
    }
    (allowed, base)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] }).collect()
}

/// Paths below `crate::` in a file's code, without comments and unit tests.
fn imports(text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let path = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        rest[..end].split("::").map(str::to_owned).collect::<Vec<_>>()
    };
    let of_crate = code.match_indices("crate::").map(|(at, found)| path(&code[at + found.len()..]));
    // `pub(crate)` has no path, and the program's own crate is the library.
    of_crate.filter(|path| !path[0].is_empty()).collect()
}

/// (module, stem within it) of a file below src.
fn place(path: &Path) -> (String, String) {
    let parts: Vec<String> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    (parts[0].clone(), parts.get(1).cloned().unwrap_or_default())
}

/// Imports that the picture does not have, as "a -> b".
fn violations(files: &[(PathBuf, String)], allowed: &Graph, base: &[String]) -> Vec<String> {
    let rank = |module: &str| base.iter().position(|name| name == module);
    let mut found = Vec::new();
    for (path, text) in files {
        let (module, _) = place(path);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        for import in imports(text) {
            let target = &import[0];
            // Items of the crate's root, such as its errors, are re-exports of the base.
            let is_module = allowed.contains_key(target) || rank(target).is_some();
            let may = match (rank(&module), rank(target)) {
                (Some(own), Some(other)) => own < other,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (None, None) => allowed.get(&module).is_some_and(|allowed| allowed.contains(target)),
            };
            if is_module && *target != module && !may {
                found.push(format!("{module} -> {target} ({})", path.display()));
            }
        }
    }
    found
}

/// A circle among the stems of one layer, if there is one.
fn circle(files: &[(PathBuf, String)], layer: &str) -> Option<String> {
    let mut graph = Graph::new();
    for (path, text) in files {
        let (module, stem) = place(path);
        if module == layer && stem != "mod" {
            let inside = imports(text).into_iter().filter(|import| import[0] == layer && import.len() > 1);
            graph.entry(stem.clone()).or_default().extend(inside.map(|import| import[1].clone()).filter(|other| *other != stem));
        }
    }
    // What imports nothing that is left is taken away, until nothing is left or a circle.
    loop {
        let known: BTreeSet<String> = graph.keys().cloned().collect();
        let done: Vec<String> = graph.iter().filter(|(_, to)| to.is_disjoint(&known)).map(|(from, _)| from.clone()).collect();
        if done.is_empty() {
            return (!graph.is_empty()).then(|| format!("{layer}: {graph:?}"));
        }
        done.iter().for_each(|stem| drop(graph.remove(stem)));
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = |path: PathBuf| (path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap());
    rust_files(&root).into_iter().map(relative).collect()
}

#[test]
fn imports_are_those_of_the_picture() {
    let (allowed, base) = picture(include_str!("../ARCHITECTURE.md"));
    let found = violations(&sources(), &allowed, &base);
    assert!(found.is_empty(), "{}", found.join("\n"));
    let modules: BTreeSet<String> = sources().iter().map(|(path, _)| place(path).0).collect();
    let drawn: BTreeSet<String> = allowed.keys().chain(&base).cloned().chain(["lib", "main"].map(str::to_owned)).collect();
    assert_eq!(modules, drawn, "each module has a line in the picture");
}

#[test]
fn no_layer_has_a_circle() {
    for layer in ["kernels", "reference", "cpu", "backend", "operations", "gpu", "ppo"] {
        assert_eq!(circle(&sources(), layer), None);
    }
}

#[test]
fn an_arrow_that_goes_up_is_found() {
    let (allowed, base) = picture("```text\ntop -> low   purpose\nlow ->\nbase: a b\n```");
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let files = [
        file("top.rs", "use crate::low::X;\nuse crate::a::Y;"),
        file("low/mod.rs", "// crate::top is above\nuse crate::top::Z;\n#[cfg(test)]\nmod tests {\nuse crate::top::W;\n}"),
        file("low/x.rs", "use crate::low::y::A;"),
        file("low/y.rs", "fn f() { crate::low::x::g() }"),
        file("b.rs", "use crate::a::Y;"),
    ];
    assert_eq!(violations(&files, &allowed, &base), ["low -> top (low/mod.rs)", "b -> a (b.rs)"]);
    assert!(circle(&files, "low").is_some() && circle(&files[..3], "low").is_none());
}
