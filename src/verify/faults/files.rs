//! Which file a piece of a shader's text comes from: a shader is some of these, one behind the other.

macro_rules! files {
    ($($path:literal,)*) => { &[$(($path, include_str!(concat!("../../../shaders/", $path)))),*] };
}

/// Path below `shaders` and text of every file.
const FILES: &[(&str, &str)] = files![
    "actor_critic/adam.wgsl",
    "actor_critic/by_layer.wgsl",
    "actor_critic/by_tile.wgsl",
    "actor_critic/tiles.wgsl",
    "advantage.wgsl",
    "elementary.wgsl",
    "gather.wgsl",
    "linear/activation.wgsl",
    "linear/edges.wgsl",
    "linear/linear.wgsl",
    "linear/tensor_core.wgsl",
    "linear/tensor_core_16.wgsl",
    "linear/tensor_core_8.wgsl",
    "linear/workgroup.wgsl",
    "nonfinite.wgsl",
    "normalize.wgsl",
    "optimizer/conclude.wgsl",
    "optimizer/formulas.wgsl",
    "optimizer/optimizer.wgsl",
    "policy/categorical.wgsl",
    "policy/gaussian.wgsl",
    "random.wgsl",
    "surrogate/loss.wgsl",
    "surrogate/shared.wgsl",
    "surrogate/surrogate.wgsl",
    "surrogate/tiles.wgsl",
];

/// The files that a shader's text is made of, each with where it begins, as far as they are known.
pub(super) fn files_of(source: &str) -> Vec<(&'static str, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((path, text)) = FILES.iter().find(|(_, text)| source[at..].starts_with(text)) {
        found.push((*path, at));
        at += text.len();
        if at == source.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shader_is_made_of_files_and_every_file_is_part_of_one() {
        let mut used = std::collections::BTreeSet::new();
        for info in crate::kernels::shaders() {
            let files = files_of(info.shader.source);
            let (last, at) = *files.last().unwrap();
            let (_, text) = FILES.iter().find(|(path, _)| *path == last).unwrap();
            assert_eq!(at + text.len(), info.shader.source.len(), "{}: unknown text behind {last}", info.shader.name);
            used.extend(files.into_iter().map(|(path, _)| path));
        }
        assert_eq!(used.into_iter().collect::<Vec<_>>(), FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }
}
