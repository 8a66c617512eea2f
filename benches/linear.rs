//! Fully connected layers: bound by arithmetic where they are wide.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::linear::{Activation, Linear};

/// Forward, the gradient of the input and those of the parameters.
struct Layer(Linear);

impl common::Case for Layer {
    fn name(&self) -> String {
        format!("linear/{}x{}x{}", self.0.batch, self.0.in_features, self.0.out_features)
    }

    fn throughput(&self) -> Throughput {
        // Three products of a multiplication and an addition each.
        Throughput::Elements((6 * self.0.batch * self.0.in_features * self.0.out_features) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let layer = self.0;
        let parameters = layer.weights() + layer.out_features;
        let x = backend.upload_floats(&common::floats(layer.batch * layer.in_features)).unwrap();
        let params = backend.upload_floats(&common::floats(parameters)).unwrap();
        let d_pre = backend.upload_floats(&common::floats(layer.batch * layer.out_features)).unwrap();
        let mut y = backend.alloc_floats(layer.batch * layer.out_features).unwrap();
        let mut d_x = backend.alloc_floats(layer.batch * layer.in_features).unwrap();
        let mut grads = backend.alloc_floats(parameters).unwrap();
        Box::new(move |backend| {
            backend.linear_forward(&layer, Activation::Tanh, &x, 0, &params, None, &mut y, 0).unwrap();
            backend.linear_backward_input(&layer, &d_pre, &params, Some((Activation::Tanh, &x)), &mut d_x).unwrap();
            backend.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
        })
    }
}

fn linear(criterion: &mut Criterion) {
    for (batch, inputs, outputs) in [(128, 64, 64), (2048, 64, 64), (4096, 256, 256)] {
        let bias_offset = inputs * outputs;
        let layer = Linear { batch, in_features: inputs, out_features: outputs, weight_offset: 0, bias_offset };
        common::run(criterion, &Layer(layer));
    }
}

criterion_group!(benches, linear);
criterion_main!(benches);
