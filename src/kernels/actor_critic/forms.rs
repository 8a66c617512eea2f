//! The shaders of the forms, and every specialisation of theirs.

use super::Form;
use super::binding::ActorCriticParams;
use super::by_layer;
use crate::gpu::{Context, Field, Indices, Shader, ShaderParams};
use crate::kernels::{Constants, ShaderInfo};

/// A shader of these files, between what it shares with others.
macro_rules! shader {
    ($name:literal, $($part:literal),*) => {
        Shader {
            name: $name,
            source: concat!(
                include_str!("../../../shaders/elementary.wgsl"),
                include_str!("../../../shaders/linear/activation.wgsl"),
                include_str!("../../../shaders/surrogate/loss.wgsl"),
                include_str!("../../../shaders/optimizer/formulas.wgsl"),
                include_str!("../../../shaders/optimizer/conclude.wgsl"),
                include_str!("../../../shaders/actor_critic/shared.wgsl"),
                $(include_str!(concat!("../../../shaders/actor_critic/", $part, ".wgsl")),)*
                include_str!("../../../shaders/actor_critic/adam.wgsl")
            ),
            indices: Indices::Proven,
        }
    };
}

/// Vectors that a subgroup reads together.
const BLOCK: u32 = 8;

impl Form {
    /// What suits the adapter, or `wanted` where it can run there.
    pub(super) fn choose(context: &Context, wanted: Option<Self>) -> Self {
        let suitable = if context.is_software() { Self::BySubgroup } else { Self::ByTile };
        match wanted.unwrap_or(suitable) {
            Self::BySubgroup if !context.has_subgroups_of(BLOCK) => Self::ByInvocation,
            form => form,
        }
    }

    pub(super) const fn shader(self) -> Shader {
        match self {
            Self::ByInvocation => shader!("actor_critic", "by_invocation", "samples", "parameters", "state_in_windows"),
            Self::BySubgroup => shader!("actor_critic/by_subgroup", "by_subgroup", "samples", "parameters", "state_in_windows"),
            Self::ByTile => shader!("actor_critic/by_tile", "tiles", "state_in_place"),
            Self::ByLayer => by_layer::SHADER,
        }
    }

    /// Packed vectors that an invocation of `update_parameters` takes.
    pub(super) const fn vectors_each(self) -> usize {
        match self {
            Self::BySubgroup => 4,
            Self::ByInvocation | Self::ByTile | Self::ByLayer => 1,
        }
    }
}

/// Every specialisation of what takes samples.
const OF_SAMPLES: &[Constants] = &[
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0)],
];

/// The same, of the smallest networks, and of some that only some adapters have the workgroup memory for.
const OF_TILES: &[Constants] = &[
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("KEPT", 4.0), ("WIDEST", 2.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("KEPT", 4.0), ("WIDEST", 2.0), ("COPIED", 18.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("KEPT", 36.0), ("WIDEST", 16.0), ("COPIED", 1314.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("KEPT", 40.0), ("WIDEST", 16.0), ("COPIED", 1570.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("KEPT", 94.0), ("WIDEST", 32.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("KEPT", 94.0), ("WIDEST", 32.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("KEPT", 126.0), ("WIDEST", 16.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("KEPT", 126.0), ("WIDEST", 16.0), ("COPIED", 1.0)],
];

/// The same for few and for many samples to act on.
const OF_ACTS: &[Constants] = &[
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
];

/// Both policies, where the activation makes no difference.
const POLICIES: &[Constants] = &[&[("GAUSSIAN", 0.0)], &[("GAUSSIAN", 1.0)]];

const PARAMS: &[(&str, usize, &[Field])] =
    &[(ActorCriticParams::NAME, size_of::<ActorCriticParams>(), ActorCriticParams::FIELDS)];
const ENTRIES: &[(&str, &[Constants])] = &[
    ("pack_weights", POLICIES),
    ("pack_moments", POLICIES),
    ("samples_act", OF_ACTS),
    ("samples_gradient", OF_SAMPLES),
    ("parameters_gradient", POLICIES),
    ("update_parameters", POLICIES),
    ("unpack_state", POLICIES),
];

const TILE_ENTRIES: &[(&str, &[Constants])] = &[
    ("pack_weights", POLICIES),
    ("tiles_act", OF_TILES),
    ("tiles_gradient", OF_TILES),
    ("sum_tiles", POLICIES),
    ("update_parameters", POLICIES),
];

pub(crate) const SHADERS: &[ShaderInfo] = &[
    ShaderInfo { shader: Form::ByInvocation.shader(), params: PARAMS, entries: ENTRIES },
    ShaderInfo { shader: Form::BySubgroup.shader(), params: PARAMS, entries: ENTRIES },
    ShaderInfo { shader: Form::ByTile.shader(), params: PARAMS, entries: TILE_ENTRIES },
    by_layer::SHADER_INFO,
];
