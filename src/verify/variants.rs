//! The variants of each kernel on a GPU.

use crate::backend::{Gpu, Variant};
use crate::kernels::actor_critic::Form;
use crate::kernels::linear::Product;

/// One way in which a GPU runs a kernel.
#[derive(Debug, Clone, Copy)]
pub struct KernelVariant {
    /// For reports.
    pub name: &'static str,
    variant: Variant,
    product: Option<Product>,
    form: Option<Form>,
}

impl KernelVariant {
    const fn new(name: &'static str, variant: Variant) -> Self {
        Self { name, variant, product: None, form: None }
    }

    const fn product(name: &'static str, product: Product) -> Self {
        Self { product: Some(product), ..Self::new(name, Variant::Auto) }
    }

    const fn form(name: &'static str, form: Form) -> Self {
        Self { form: Some(form), ..Self::new(name, Variant::Auto) }
    }

    /// Has `gpu` run the kernel so.
    pub fn choose(&self, gpu: &mut Gpu) {
        (gpu.variant, gpu.product, gpu.fused_form) = (self.variant, self.product, self.form);
    }
}

const PLAIN: KernelVariant = KernelVariant::new("plain", Variant::Plain);
const FAST: KernelVariant = KernelVariant::new("fast", Variant::Fast);

/// The variants of a kernel, of [`KERNELS`](super::KERNELS).
pub fn variants(kernel: &str) -> &'static [KernelVariant] {
    match kernel {
        "linear" => {
            const {
                &[
                    PLAIN,
                    FAST,
                    KernelVariant::product("64x64", Product::Workgroup64),
                    KernelVariant::product("128x128", Product::Workgroup128),
                ]
            }
        }
        "actor_critic" => {
            const { &[KernelVariant::form("by tile", Form::ByTile), KernelVariant::form("by layer", Form::ByLayer)] }
        }
        "surrogate" => {
            const { &[PLAIN, KernelVariant::new("fused", Variant::Auto), KernelVariant::new("by tile", Variant::Fast)] }
        }
        "advantage" | "normalize" => const { &[PLAIN, FAST] },
        _ => const { &[KernelVariant::new("only", Variant::Auto)] },
    }
}
