//! The operations of [`kernels::linear`](crate::kernels::linear) on every backend.

use super::{Cpu, CrossCheck, Memory};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::cpu::linear as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::linear::TensorCores;
use crate::kernels::linear::{self as kernels, Activation, ForwardOperands, Linear, Precision};
use crate::reference::linear as reference;
use crate::tolerance::Tolerance;

/// Fully connected layers and their gradients.
pub trait LinearOps: Memory {
    /// What the three products of `layer` are computed in.
    fn product_precision(&self, _layer: &Linear) -> Precision {
        Precision::F32
    }

    /// y = act(x·Wᵀ + b).
    ///
    /// `x` `[batch, in]` is read from element `x_offset` on, `y` `[batch, out]` written from `y_offset` on. `pre`, if given, takes
    /// x·Wᵀ + b `[batch, out]`, which [`linear_backward_input`](Self::linear_backward_input) needs for activations that say so.
    ///
    /// # Errors
    /// A size of zero or of 2³² and more; a buffer too small; a limit of the adapter.
    fn linear_forward(
        &mut self,
        layer: &Linear,
        activation: Activation,
        operands: ForwardOperands<'_, Self::Floats>,
    ) -> Result<()>;

    /// d_pre = d_y ⊙ act′, elementwise over `len` elements. `saved` is the pre-activation where
    /// [`Activation::needs_pre_activation`], else the output y.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward).
    fn activation_backward(
        &mut self,
        activation: Activation,
        len: usize,
        saved: &Self::Floats,
        d_y: &Self::Floats,
        d_pre: &mut Self::Floats,
    ) -> Result<()>;

    /// d_x = d_pre·W `[batch, in]`, and with `through` = (activation, saved `[batch, in]`) of the layer below also ⊙ act′: then
    /// `d_x` is that layer's d_pre.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward).
    fn linear_backward_input(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        params: &Self::Floats,
        through: Option<(Activation, &Self::Floats)>,
        d_x: &mut Self::Floats,
    ) -> Result<()>;

    /// dW = d_preᵀ·x `[out, in]` and db = Σ_batch d_pre `[out]`, written to `grads` at the layer's offsets.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward); a bias that lies among the weights.
    fn linear_backward_params(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        x: &Self::Floats,
        grads: &mut Self::Floats,
    ) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl Gpu {
    /// What multiplies this layer's matrices, if not f32 kernels do: those alone are the plain variant, what a forced product asks for, and better
    /// at small matrices.
    fn tensor_cores_for(&self, layer: &Linear) -> Option<TensorCores> {
        self.tensor_cores.filter(|_| self.product.is_none()).filter(|_| match self.variant {
            Variant::Plain => false,
            Variant::Auto => layer.suits_tensor_cores(),
            Variant::Fast => true,
        })
    }

    pub(super) fn use_tensor_cores(&mut self, layer: &Linear) -> Option<TensorCores> {
        let cores = self.tensor_cores_for(layer);
        self.used_precision = cores.map_or(self.used_precision, TensorCores::precision);
        cores
    }
}

#[cfg(feature = "gpu")]
impl LinearOps for Gpu {
    fn product_precision(&self, layer: &Linear) -> Precision {
        self.tensor_cores_for(layer).map_or(Precision::F32, TensorCores::precision)
    }

    fn linear_forward(
        &mut self,
        layer: &Linear,
        activation: Activation,
        operands: ForwardOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        let ways = self.ways(layer);
        kernels::record_forward(&mut self.context, ways, layer, activation, &operands)
    }

    fn activation_backward(
        &mut self,
        activation: Activation,
        len: usize,
        saved: &Buffer<f32>,
        d_y: &Buffer<f32>,
        d_pre: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_activation_backward(&mut self.context, activation, len, saved, d_y, d_pre)
    }

    fn linear_backward_input(
        &mut self,
        layer: &Linear,
        d_pre: &Buffer<f32>,
        params: &Buffer<f32>,
        through: Option<(Activation, &Buffer<f32>)>,
        d_x: &mut Buffer<f32>,
    ) -> Result<()> {
        let ways = self.ways(layer);
        kernels::record_backward_input(&mut self.context, ways, layer, d_pre, params, through, d_x)
    }

    fn linear_backward_params(
        &mut self,
        layer: &Linear,
        d_pre: &Buffer<f32>,
        x: &Buffer<f32>,
        grads: &mut Buffer<f32>,
    ) -> Result<()> {
        let ways = self.ways(layer);
        kernels::record_backward_params(&mut self.context, ways, layer, d_pre, x, grads)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl LinearOps for Cpu<$real> {
            fn linear_forward(
                &mut self,
                layer: &Linear,
                activation: Activation,
                operands: ForwardOperands<'_, Vec<$real>>,
            ) -> Result<()> {
                layer.check_forward(&operands)?;
                let ForwardOperands { x, x_offset, params, pre, y, y_offset } = operands;
                let (x, pre, y) = (&x[x_offset..], pre.map(Vec::as_mut_slice), &mut y[y_offset..]);
                $arithmetic::forward(layer, activation, x, params, pre, y);
                Ok(())
            }

            fn activation_backward(
                &mut self,
                activation: Activation,
                len: usize,
                saved: &Vec<$real>,
                d_y: &Vec<$real>,
                d_pre: &mut Vec<$real>,
            ) -> Result<()> {
                kernels::check_elementwise(len, [("saved", saved.len()), ("d_y", d_y.len()), ("d_pre", d_pre.len())])?;
                $arithmetic::activation_backward(activation, saved, d_y, &mut d_pre[..len]);
                Ok(())
            }

            fn linear_backward_input(
                &mut self,
                layer: &Linear,
                d_pre: &Vec<$real>,
                params: &Vec<$real>,
                through: Option<(Activation, &Vec<$real>)>,
                d_x: &mut Vec<$real>,
            ) -> Result<()> {
                layer.check_backward_input(d_pre.len(), params.len(), through.map(|(_, saved)| saved.len()), d_x.len())?;
                let through = through.map(|(activation, saved)| (activation, saved.as_slice()));
                $arithmetic::backward_input(layer, d_pre, params, through, d_x);
                Ok(())
            }

            fn linear_backward_params(
                &mut self,
                layer: &Linear,
                d_pre: &Vec<$real>,
                x: &Vec<$real>,
                grads: &mut Vec<$real>,
            ) -> Result<()> {
                layer.check_backward_params(d_pre.len(), x.len(), grads.len())?;
                $arithmetic::backward_params(layer, d_pre, x, grads);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

/// The tolerance of a product in f32, or on tensor cores where there are magnitudes of rounded operands.
fn widened(in_f32: Tolerance, terms: usize, magnitudes: &[f64], rounded: Option<&[f64]>) -> Tolerance {
    match rounded {
        Some(rounded) => kernels::tensor_core_tolerance(in_f32, terms, magnitudes, rounded),
        None => in_f32,
    }
}

/// Magnitudes of the product's terms as [`tensor_core_tolerance`](kernels::tensor_core_tolerance) wants them, of operands with the scales they are
/// multiplied by; none in f32.
fn rounded(
    precision: Precision,
    a: (&[f64], f64),
    b: (&[f64], f64),
    product: impl Fn(&[f64], &[f64]) -> Vec<f64>,
) -> Option<Vec<f64>> {
    let [a, b] = [a, b].map(|(magnitudes, scale)| kernels::rounded_magnitudes(precision, magnitudes, scale));
    let products = a.iter().zip(&b).map(|(a, b)| product(a, b));
    products.reduce(|sums, more| sums.iter().zip(more).map(|(sum, more)| sum + more).collect())
}

impl<A: LinearOps, B: LinearOps> CrossCheck<A, B> {
    /// |values| of the first `len` elements from `offset` on, in double precision.
    fn magnitudes(&mut self, buffer: &B::Floats, offset: usize, len: usize) -> Result<Vec<f64>> {
        Ok(self.b.read_f64(buffer, offset, len)?.into_iter().map(f64::abs).collect())
    }

    /// |W| and |b| of a layer as a parameter buffer of their own, with the layer that finds them there.
    fn parameter_magnitudes(&mut self, layer: &Linear, params: &B::Floats) -> Result<(Linear, Vec<f64>)> {
        let mut magnitudes = self.magnitudes(params, layer.weight_offset, layer.weights())?;
        magnitudes.extend(self.magnitudes(params, layer.bias_offset, layer.out_features)?);
        Ok((Linear { weight_offset: 0, bias_offset: layer.weights(), ..*layer }, magnitudes))
    }
}

impl<A: LinearOps, B: LinearOps> LinearOps for CrossCheck<A, B> {
    fn linear_forward(
        &mut self,
        layer: &Linear,
        activation: Activation,
        mut operands: ForwardOperands<'_, Self::Floats>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.linear_forward(layer, activation, a)?;
        self.b.linear_forward(layer, activation, b)?;
        let ForwardOperands { x, x_offset, params, pre, y, y_offset } = operands;
        let outputs = layer.batch * layer.out_features;
        let x = self.magnitudes(&x.b, x_offset, layer.batch * layer.in_features)?;
        let (own, params) = self.parameter_magnitudes(layer, &params.b)?;
        let (weights, biases) = params.split_at(layer.weights());
        let product = |x: &[f64], weights: &[f64]| {
            let mut magnitudes = vec![0.0; outputs];
            let params = [weights, &vec![0.0; biases.len()]].concat();
            reference::forward(&own, Activation::Identity, x, &params, None, &mut magnitudes);
            magnitudes
        };
        let sums = product(&x, weights);
        let rounded = rounded(self.a.product_precision(layer), (&x, 1.0), (weights, 1.0), product);
        let magnitudes: Vec<f64> = sums.iter().zip(biases.iter().cycle()).map(|(sum, bias)| sum + bias).collect();
        if let Some(pre) = pre {
            let tolerance = kernels::forward_tolerance(layer, Activation::Identity, &magnitudes, &magnitudes);
            let tolerance = widened(tolerance, layer.in_features, &sums, rounded.as_deref());
            self.compare("linear_forward", "pre", pre, 0..outputs, &tolerance)?;
        }
        let values = self.b.read_f64(&y.b, y_offset, outputs)?;
        let tolerance = kernels::forward_tolerance(layer, activation, &magnitudes, &values);
        let tolerance = widened(tolerance, layer.in_features, &sums, rounded.as_deref());
        self.compare("linear_forward", "y", y, y_offset..y_offset + outputs, &tolerance)
    }

    fn activation_backward(
        &mut self,
        activation: Activation,
        len: usize,
        saved: &Self::Floats,
        d_y: &Self::Floats,
        d_pre: &mut Self::Floats,
    ) -> Result<()> {
        self.a.activation_backward(activation, len, &saved.a, &d_y.a, &mut d_pre.a)?;
        self.b.activation_backward(activation, len, &saved.b, &d_y.b, &mut d_pre.b)?;
        let tolerance = kernels::activation_backward_tolerance(&self.b.read_f64(&d_y.b, 0, len)?);
        self.compare("activation_backward", "d_pre", d_pre, 0..len, &tolerance)
    }

    fn linear_backward_input(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        params: &Self::Floats,
        through: Option<(Activation, &Self::Floats)>,
        d_x: &mut Self::Floats,
    ) -> Result<()> {
        let (through_a, through_b) = through.map(|(activation, saved)| ((activation, &saved.a), (activation, &saved.b))).unzip();
        self.a.linear_backward_input(layer, &d_pre.a, &params.a, through_a, &mut d_x.a)?;
        self.b.linear_backward_input(layer, &d_pre.b, &params.b, through_b, &mut d_x.b)?;
        let inputs = layer.batch * layer.in_features;
        let d_pre = self.magnitudes(&d_pre.b, 0, layer.batch * layer.out_features)?;
        let (own, params) = self.parameter_magnitudes(layer, &params.b)?;
        let product = |d_pre: &[f64], params: &[f64]| {
            let mut magnitudes = vec![0.0; inputs];
            reference::backward_input(&own, d_pre, params, None, &mut magnitudes);
            magnitudes
        };
        let magnitudes = product(&d_pre, &params);
        let scale = kernels::gradient_scale(layer.batch);
        let rounded = rounded(self.a.product_precision(layer), (&d_pre, scale), (&params, 1.0), product);
        let tolerance = kernels::backward_input_tolerance(layer, &magnitudes);
        let tolerance = widened(tolerance, layer.out_features, &magnitudes, rounded.as_deref());
        self.compare("linear_backward_input", "d_x", d_x, 0..inputs, &tolerance)
    }

    fn linear_backward_params(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        x: &Self::Floats,
        grads: &mut Self::Floats,
    ) -> Result<()> {
        self.a.linear_backward_params(layer, &d_pre.a, &x.a, &mut grads.a)?;
        self.b.linear_backward_params(layer, &d_pre.b, &x.b, &mut grads.b)?;
        let d_pre = self.magnitudes(&d_pre.b, 0, layer.batch * layer.out_features)?;
        let x = self.magnitudes(&x.b, 0, layer.batch * layer.in_features)?;
        let own = Linear { weight_offset: 0, bias_offset: layer.weights(), ..*layer };
        let product = |d_pre: &[f64], x: &[f64]| {
            let mut magnitudes = vec![0.0; layer.weights() + layer.out_features];
            reference::backward_params(&own, d_pre, x, &mut magnitudes);
            magnitudes
        };
        let magnitudes = product(&d_pre, &x);
        let scale = kernels::gradient_scale(layer.batch);
        let rounded = rounded(self.a.product_precision(layer), (&d_pre, scale), (&x, 1.0), product);
        let (d_weights, d_bias) = magnitudes.split_at(layer.weights());
        let mut check = |tensor, offset: usize, tolerance: &Tolerance, len: usize| {
            self.compare("linear_backward_params", tensor, grads, offset..offset + len, tolerance)
        };
        let tolerance = kernels::backward_params_tolerance(layer, d_weights);
        let tolerance =
            widened(tolerance, layer.terms_over_batch(), d_weights, rounded.as_ref().map(|rounded| &rounded[..layer.weights()]));
        check("d_weights", layer.weight_offset, &tolerance, d_weights.len())?;
        // The bias has no operand that would be rounded.
        check("d_bias", layer.bias_offset, &kernels::backward_params_tolerance(layer, d_bias), d_bias.len())
    }
}
