//! Changes that provably change nothing, so that no verification can notice them.

use super::Fault;

/// One such change.
#[derive(Debug)]
pub(super) struct Explained {
    /// The file below `shaders`.
    pub(super) file: &'static str,
    /// The function or the declaration.
    pub(super) item: &'static str,
    /// The line, with what is changed between « and ».
    pub(super) place: &'static str,
    /// What stands there instead.
    pub(super) to: &'static str,
    /// The shader, where the reason holds in one only.
    pub(super) shader: Option<&'static str>,
    /// Why nothing changes.
    pub(super) reason: &'static str,
}

impl Explained {
    pub(super) fn is_of(&self, fault: &Fault) -> bool {
        (self.file, self.item, self.place, self.to) == (fault.file, &*fault.item, &*fault.place, &*fault.to)
            && self.shader.is_none_or(|shader| shader == fault.shader)
    }
}

pub(super) const EXPLAINED: &[Explained] = &[Explained {
    file: "optimizer/formulas.wgsl",
    item: "clip_of",
    place: "if limited && divisor «>» max_grad_norm {",
    to: ">=",
    shader: None,
    reason: "where both are equal, their quotient is 1, which the coefficient is without it",
}];
