//! The ways in which a GPU runs each kernel.

use super::KERNELS;
use crate::backend::{Gpu, Variant};
use crate::kernels::actor_critic::Form;
use crate::kernels::linear::Product;

/// One way, and the shaders whose faults it can show.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The way's name.
    pub name: &'static str,
    variant: Variant,
    product: Option<Product>,
    form: Option<Form>,
    shaders: &'static [&'static str],
}

impl Setting {
    const fn of(name: &'static str, variant: Variant, shaders: &'static [&'static str]) -> Self {
        Self { name, variant, product: None, form: None, shaders }
    }

    /// Has the backend run kernels in this way.
    pub fn apply(&self, gpu: &mut Gpu) {
        (gpu.variant, gpu.product, gpu.fused_form) = (self.variant, self.product, self.form);
    }
}

const fn product(name: &'static str, product: Product) -> Setting {
    Setting { product: Some(product), ..Setting::of(name, Variant::Auto, &["linear"]) }
}

const fn form(name: &'static str, form: Form, shaders: &'static [&'static str]) -> Setting {
    Setting { form: Some(form), ..Setting::of(name, Variant::Auto, shaders) }
}

/// In which ways to verify one of [`KERNELS`].
pub fn settings(kernel: &str) -> &'static [Setting] {
    const TENSOR_CORES: [&str; 3] = ["linear", "linear/tensor_core_8", "linear/tensor_core_16"];
    match kernel {
        "linear" => {
            const {
                &[
                    Setting::of("plain", Variant::Plain, &["linear"]),
                    Setting::of("fast", Variant::Fast, &TENSOR_CORES),
                    product("64x64", Product::Workgroup64),
                    product("128x128", Product::Workgroup128),
                ]
            }
        }
        "actor_critic" => {
            const {
                &[
                    form("by invocation", Form::ByInvocation, &["actor_critic"]),
                    form("by subgroup", Form::BySubgroup, &["actor_critic/by_subgroup"]),
                    form("by tile", Form::ByTile, &["actor_critic/by_tile"]),
                    form("by layer", Form::ByLayer, &["actor_critic/by_layer"]),
                ]
            }
        }
        "surrogate" => {
            const {
                &[
                    Setting::of("plain", Variant::Plain, &["surrogate"]),
                    Setting::of("fused", Variant::Auto, &["surrogate"]),
                    Setting::of("by tile", Variant::Fast, &["surrogate", "surrogate/by_tile"]),
                ]
            }
        }
        "advantage" => {
            const { &[Setting::of("plain", Variant::Plain, &["advantage"]), Setting::of("fast", Variant::Fast, &["advantage"])] }
        }
        "policy" => const { &[Setting::of("only", Variant::Auto, &["policy/categorical", "policy/gaussian"])] },
        "normalize" => const { &[Setting::of("only", Variant::Auto, &["normalize"])] },
        "optimizer" => const { &[Setting::of("only", Variant::Auto, &["optimizer"])] },
        "nonfinite" => const { &[Setting::of("only", Variant::Auto, &["nonfinite"])] },
        "gather" => const { &[Setting::of("only", Variant::Auto, &["gather"])] },
        "random" => const { &[Setting::of("only", Variant::Auto, &["random"])] },
        _ => &[],
    }
}

/// The kernel that a shader belongs to, and the ways that run the shader.
pub(super) fn of_shader(shader: &str) -> (&'static str, Vec<&'static Setting>) {
    let kernel = KERNELS.iter().find(|kernel| shader.split('/').next() == Some(kernel)).unwrap_or(&"");
    (kernel, settings(kernel).iter().filter(|setting| setting.shaders.contains(&shader)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shader_is_run_in_some_way() {
        for info in crate::kernels::shaders() {
            assert!(!of_shader(info.shader.name).1.is_empty(), "{}", info.shader.name);
        }
        assert!(KERNELS.iter().all(|kernel| !settings(kernel).is_empty()));
        assert!(of_shader("linear/unknown").1.is_empty() && of_shader("unknown").1.is_empty());
    }
}
