//! Fully connected layers and their gradients.

#[path = "../common/mod.rs"]
mod common;
mod tensor_cores;

use common::{Draw, ON_TENSOR_CORES, check_gradient, checked, checked_on_tensor_cores, expect_mismatch, gpu, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, LinearOps, Memory, Precision, Variant};
use ppo_kernels::kernels::linear::{Activation, ForwardOperands, Linear, Product};

const ALL: [Activation; 7] = [
    Activation::Identity,
    Activation::Tanh,
    Activation::Relu,
    Activation::Elu,
    Activation::Silu,
    Activation::GeluErf,
    Activation::GeluTanh,
];

on_every_backend!(
    a_layer_by_hand,
    activations_have_their_known_values,
    activations_keep_nan,
    offsets_leave_the_neighbours_alone,
    products_agree_with_the_triple_loop,
    a_gradient_goes_through_the_activation_below,
    a_long_batch_is_summed_accurately,
    the_same_input_gives_the_same_bits,
);

fn layer(batch: usize, in_features: usize, out_features: usize) -> Linear {
    Linear { batch, in_features, out_features, weight_offset: 0, bias_offset: in_features * out_features }
}

fn a_layer_by_hand<B: LinearOps>(backend: &mut B) {
    let layer = layer(2, 3, 2);
    let params = backend.upload_floats(&[1.0, 2.0, 3.0, -1.0, 0.0, 1.0, 10.0, 20.0]).unwrap();
    let x = backend.upload_floats(&[1.0, 1.0, 1.0, 2.0, 0.0, -1.0]).unwrap();
    let mut y = backend.alloc_floats(4).unwrap();
    backend
        .linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        )
        .unwrap();
    assert_eq!(backend.read_floats(&y, 0, 4).unwrap(), [16.0, 20.0, 9.0, 17.0]);

    let d_pre = backend.upload_floats(&[1.0, 10.0, 100.0, 1000.0]).unwrap();
    let mut d_x = backend.alloc_floats(6).unwrap();
    backend.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
    assert_eq!(backend.read_floats(&d_x, 0, 6).unwrap(), [-9.0, 2.0, 13.0, -900.0, 200.0, 1300.0]);

    let mut grads = backend.alloc_floats(8).unwrap();
    backend.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
    assert_eq!(backend.read_floats(&grads, 0, 8).unwrap(), [201.0, 1.0, -99.0, 2010.0, 10.0, -990.0, 101.0, 1010.0]);
}

/// act(x) for single numbers, by layers of one weight.
fn activate<B: LinearOps>(backend: &mut B, activation: Activation, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = x.len();
    let params = backend.upload_floats(&[1.0, 0.0]).unwrap();
    let x = backend.upload_floats(x).unwrap();
    let (mut y, mut pre) = (backend.alloc_floats(n).unwrap(), backend.alloc_floats(n).unwrap());
    backend
        .linear_forward(
            &layer(n, 1, 1),
            activation,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: Some(&mut pre), y: &mut y, y_offset: 0 },
        )
        .unwrap();
    let values = backend.read_f64(&y, 0, n).unwrap();
    let saved = if activation.needs_pre_activation() { &pre } else { &y };
    let ones = backend.upload_floats(&vec![1.0; n]).unwrap();
    let mut slope = backend.alloc_floats(n).unwrap();
    backend.activation_backward(activation, n, saved, &ones, &mut slope).unwrap();
    (values, backend.read_f64(&slope, 0, n).unwrap())
}

/// As PyTorch's: what is lost here could not be reported.
fn activations_keep_nan<B: LinearOps>(backend: &mut B) {
    for activation in ALL {
        let (y, _) = activate(backend, activation, &[f32::NAN, 1.0]);
        assert!(y[0].is_nan() && y[1].is_finite(), "{activation:?}: {y:?}");
    }
}

fn activations_have_their_known_values<B: LinearOps>(backend: &mut B) {
    // x = −100, −1, 0, 0.5, 100; values and derivatives to twelve digits.
    let x = [-100.0f32, -1.0, 0.0, 0.5, 100.0];
    let known: [(Activation, [f64; 5], [f64; 5]); 7] = [
        (Activation::Identity, [-100.0, -1.0, 0.0, 0.5, 100.0], [1.0; 5]),
        (Activation::Tanh, [-1.0, -0.761594155956, 0.0, 0.462117157260, 1.0], [0.0, 0.419974341614, 1.0, 0.786447732966, 0.0]),
        (Activation::Relu, [0.0, 0.0, 0.0, 0.5, 100.0], [0.0, 0.0, 0.0, 1.0, 1.0]),
        (Activation::Elu, [-1.0, -0.632120558829, 0.0, 0.5, 100.0], [0.0, 0.367879441171, 1.0, 1.0, 1.0]),
        (Activation::Silu, [0.0, -0.268941421370, 0.0, 0.311229665601, 100.0], [0.0, 0.072329488129, 0.5, 0.739961186730, 1.0]),
        (
            Activation::GeluErf,
            [0.0, -0.158655253931, 0.0, 0.345731230612, 100.0],
            [0.0, -0.083315470648, 0.5, 0.867495124651, 1.0],
        ),
        (
            Activation::GeluTanh,
            [0.0, -0.158808009917, 0.0, 0.345714010306, 100.0],
            [0.0, -0.082964082841, 0.5, 0.867369836211, 1.0],
        ),
    ];
    for (activation, values, slopes) in known {
        let (y, slope) = activate(backend, activation, &x);
        for i in 0..x.len() {
            assert!((y[i] - values[i]).abs() <= 5e-7, "{activation:?}({}) is {}", x[i], y[i]);
            assert!((slope[i] - slopes[i]).abs() <= 2e-6, "{activation:?}'({}) is {}", x[i], slope[i]);
        }
    }
}

fn offsets_leave_the_neighbours_alone<B: LinearOps>(backend: &mut B) {
    let layer = Linear { batch: 1, in_features: 1, out_features: 2, weight_offset: 3, bias_offset: 1 };
    let params = backend.upload_floats(&[9.0, 0.5, 0.25, 2.0, 3.0]).unwrap();
    let x = backend.upload_floats(&[7.0, 7.0, 10.0]).unwrap();
    let mut y = backend.upload_floats(&[-1.0; 4]).unwrap();
    backend
        .linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 2, params: &params, pre: None, y: &mut y, y_offset: 1 },
        )
        .unwrap();
    assert_eq!(backend.read_floats(&y, 0, 4).unwrap(), [-1.0, 20.5, 30.25, -1.0]);
    let d_pre = backend.upload_floats(&[1.0, 2.0]).unwrap();
    let mut grads = backend.upload_floats(&[-1.0; 6]).unwrap();
    backend.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
    assert_eq!(backend.read_floats(&grads, 0, 6).unwrap(), [-1.0, 1.0, 2.0, 7.0, 14.0, -1.0]);
}

/// Batch, inputs and outputs of a layer that the CPU shares among its threads by blocks of rows, or of outputs, none of which they divide.
const IN_BLOCKS: (usize, usize, usize) = (1030, 60, 35);

fn products_agree_with_the_triple_loop<B: LinearOps>(backend: &mut B) {
    [(19, 23, 13), IN_BLOCKS].into_iter().for_each(|sizes| agrees_with_the_triple_loop(backend, sizes));
}

fn agrees_with_the_triple_loop<B: LinearOps>(backend: &mut B, (m, k, n): (usize, usize, usize)) {
    let layer = layer(m, k, n);
    let mut draw = Draw::new(4);
    let (x, params, d_pre) = (draw.floats(m * k, 1.0), draw.floats(k * n + n, 1.0), draw.floats(m * n, 1.0));
    let at = |data: &[f32], i: usize| f64::from(data[i]);
    let mut expected_y = vec![0.0; m * n];
    let mut expected_dx = vec![0.0; m * k];
    let mut expected_grads = vec![0.0; k * n + n];
    for i in 0..m {
        for j in 0..n {
            expected_y[i * n + j] = at(&params, k * n + j);
            expected_grads[k * n + j] += at(&d_pre, i * n + j);
            for l in 0..k {
                expected_y[i * n + j] += at(&x, i * k + l) * at(&params, j * k + l);
                expected_dx[i * k + l] += at(&d_pre, i * n + j) * at(&params, j * k + l);
                expected_grads[j * k + l] += at(&d_pre, i * n + j) * at(&x, i * k + l);
            }
        }
    }
    let (x, params, d_pre) =
        (backend.upload_floats(&x).unwrap(), backend.upload_floats(&params).unwrap(), backend.upload_floats(&d_pre).unwrap());
    let mut y = backend.alloc_floats(m * n).unwrap();
    let mut d_x = backend.alloc_floats(m * k).unwrap();
    let mut grads = backend.alloc_floats(k * n + n).unwrap();
    backend
        .linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        )
        .unwrap();
    backend.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
    backend.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
    for (name, buffer, expected) in [("y", &y, expected_y), ("d_x", &d_x, expected_dx), ("grads", &grads, expected_grads)] {
        let error = common::relative_error(&backend.read_f64(buffer, 0, expected.len()).unwrap(), &expected);
        let allowed = match backend.product_precision(&layer) {
            Precision::F32 | Precision::F16x3TensorCore => 1e-6,
            // Two operands of f16, each off by 2⁻¹¹ at most.
            Precision::F16TensorCore => 2f64.powi(-10),
        };
        assert!(error < allowed, "{name}: {error:e}");
    }
}

fn a_gradient_goes_through_the_activation_below<B: LinearOps>(backend: &mut B) {
    let (m, k, n) = IN_BLOCKS;
    let layer = layer(m, k, n);
    let mut draw = Draw::new(7);
    let [params, d_pre, saved] = [k * n + n, m * n, m * k].map(|len| backend.upload_floats(&draw.floats(len, 0.5)).unwrap());
    let [mut at_once, mut d_y, mut in_two] = [(); 3].map(|()| backend.alloc_floats(m * k).unwrap());
    backend.linear_backward_input(&layer, &d_pre, &params, Some((Activation::Tanh, &saved)), &mut at_once).unwrap();
    backend.linear_backward_input(&layer, &d_pre, &params, None, &mut d_y).unwrap();
    backend.activation_backward(Activation::Tanh, m * k, &saved, &d_y, &mut in_two).unwrap();
    let [at_once, in_two] = [at_once, in_two].map(|buffer| backend.read_f64(&buffer, 0, m * k).unwrap());
    let error = common::relative_error(&at_once, &in_two);
    assert!(error < 1e-6, "{error:e}");
}

fn a_long_batch_is_summed_accurately<B: LinearOps>(backend: &mut B) {
    // Past llvmpipe's longest loop, and with a mean that a single running f32 sum would lose.
    let batch = 70_001;
    let x: Vec<f32> = Draw::new(5).floats(batch, 1.0).iter().map(|x| 100.0 + x).collect();
    // A gradient of the order of 1/batch, and exact.
    let share = 1.0 / 65_536.0;
    let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(share)).sum();
    let shares = backend.upload_floats(&vec![share; batch]).unwrap();
    let x = backend.upload_floats(&x).unwrap();
    let mut grads = backend.alloc_floats(2).unwrap();
    backend.linear_backward_params(&layer(batch, 1, 1), &shares, &x, &mut grads).unwrap();
    let [d_weight, d_bias] = backend.read_f64(&grads, 0, 2).unwrap()[..] else { panic!("two elements") };
    assert!(((d_weight - expected) / expected).abs() < 1e-5, "{d_weight} instead of {expected}");
    assert_eq!(d_bias, batch as f64 * f64::from(share));
}

fn the_same_input_gives_the_same_bits<B: LinearOps>(backend: &mut B) {
    let layer = layer(4100, 9, 10);
    let mut draw = Draw::new(6);
    let d_pre = backend.upload_floats(&draw.floats(4100 * 10, 1.0)).unwrap();
    let x = backend.upload_floats(&draw.floats(4100 * 9, 1.0)).unwrap();
    let mut once = backend.alloc_floats(100).unwrap();
    let mut again = backend.alloc_floats(100).unwrap();
    backend.linear_backward_params(&layer, &d_pre, &x, &mut once).unwrap();
    backend.linear_backward_params(&layer, &d_pre, &x, &mut again).unwrap();
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(backend.read_f64(&once, 0, 100).unwrap()), bits(backend.read_f64(&again, 0, 100).unwrap()));
}

/// Every operation of one layer, forward and back, with every activation below it.
fn run_layer(both: &mut CrossCheck<Gpu, Cpu<f64>>, draw: &mut Draw, layer: &Linear, activation: Activation) {
    let Linear { batch, in_features, out_features, .. } = *layer;
    // What the layer below would have left: its pre-activation, or its output, from which no derivative is steeper than the activation ever is.
    let mut inputs = draw.floats(batch * in_features, 1.5);
    if !activation.needs_pre_activation() {
        inputs.iter_mut().for_each(|x| *x = ppo_kernels::reference::linear::activate(activation, *x));
    }
    let x = both.upload_floats(&inputs).unwrap();
    let params = both.upload_floats(&draw.floats(layer.weights() + out_features, 1.0 / (in_features as f32).sqrt())).unwrap();
    let d_y = both.upload_floats(&draw.floats(batch * out_features, 1.0 / batch as f32)).unwrap();
    let (mut y, mut pre) = (both.alloc_floats(batch * out_features).unwrap(), both.alloc_floats(batch * out_features).unwrap());
    both.linear_forward(
        layer,
        activation,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )
    .unwrap();
    both.linear_forward(
        layer,
        activation,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: Some(&mut pre), y: &mut y, y_offset: 0 },
    )
    .unwrap();
    let saved = if activation.needs_pre_activation() { &pre } else { &y };
    let mut d_pre = both.alloc_floats(batch * out_features).unwrap();
    both.activation_backward(activation, batch * out_features, saved, &d_y, &mut d_pre).unwrap();
    let mut d_x = both.alloc_floats(batch * in_features).unwrap();
    both.linear_backward_input(layer, &d_pre, &params, None, &mut d_x).unwrap();
    both.linear_backward_input(layer, &d_pre, &params, Some((activation, &x)), &mut d_x).unwrap();
    let mut grads = both.alloc_floats(layer.weights() + out_features).unwrap();
    both.linear_backward_params(layer, &d_pre, &x, &mut grads).unwrap();
}

#[test]
fn every_way_agrees_with_the_twin_at_edge_sizes() {
    let Some(mut both) = checked() else { return };
    let mut draw = Draw::new(7);
    for way in Product::ALL {
        both.a.product = Some(way);
        // Around tiles of 8, 64 and 128, the workgroup of 64 and the shortest stretch of 256 samples.
        for (i, (batch, inputs, outputs)) in [
            (1, 1, 1),
            (7, 8, 9),
            (8, 7, 8),
            (9, 9, 7),
            (64, 65, 1),
            (1, 300, 63),
            (65, 1, 64),
            (129, 65, 127),
            (255, 3, 5),
            (257, 9, 2),
            (2049, 1, 1),
        ]
        .into_iter()
        .enumerate()
        {
            run_layer(&mut both, &mut draw, &layer(batch, inputs, outputs), ALL[i % ALL.len()]);
        }
        for activation in ALL {
            run_layer(&mut both, &mut draw, &layer(33, 17, 29), activation);
        }
    }
}

#[test]
fn more_than_65535_workgroups_are_folded() {
    let Some(mut both) = checked() else { return };
    both.a.variant = Variant::Plain;
    run_layer(&mut both, &mut Draw::new(8), &layer(4_194_400, 1, 1), Activation::Relu);
    for (mut both, _) in ON_TENSOR_CORES.into_iter().filter_map(checked_on_tensor_cores) {
        run_layer(&mut both, &mut Draw::new(8), &layer(4_194_400, 1, 1), Activation::Relu);
    }
}

#[test]
fn activations_stay_right_far_out() {
    let Some(both) = checked() else { return };
    let on_tensor_cores = ON_TENSOR_CORES.into_iter().filter_map(checked_on_tensor_cores);
    for (mut both, largest) in [(both, 1e30)].into_iter().chain(on_tensor_cores.map(|(both, _)| (both, 6.5e4))) {
        activations_stay_right_up_to(&mut both, largest);
    }
}

fn activations_stay_right_up_to(both: &mut CrossCheck<Gpu, Cpu<f64>>, largest: f32) {
    let mut x: Vec<f32> = (-400..=400).map(|i| i as f32 * 0.25).collect();
    x.extend([1e-6, -1e-6, 1e-30, -1e-30, 87.0, -87.0, 88.5, -88.5, 1e4, -1e4, largest, -largest, 0.0, -0.0, 0.624_999, 0.625]);
    for activation in ALL {
        let (y, slope) = activate(both, activation, &x);
        assert!(y.iter().chain(&slope).all(|v| v.is_finite()), "{activation:?}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut cpu = Cpu::<f64>::new();
    let layer = layer(3, 4, 5);
    let mut draw = Draw::new(9);
    let mut wide = |n| draw.floats(n, 1.0).into_iter().map(f64::from).collect::<Vec<f64>>();
    let (x, params, d_y) = (wide(12), wide(25), wide(15));
    for activation in ALL {
        let (mut y, mut pre) = (vec![0.0; 15], vec![0.0; 15]);
        cpu.linear_forward(
            &layer,
            activation,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: Some(&mut pre), y: &mut y, y_offset: 0 },
        )
        .unwrap();
        let saved = if activation.needs_pre_activation() { &pre } else { &y };
        let (mut d_pre, mut d_x, mut grads) = (vec![0.0; 15], vec![0.0; 12], vec![0.0; 25]);
        cpu.activation_backward(activation, 15, saved, &d_y, &mut d_pre).unwrap();
        cpu.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
        cpu.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
        let loss = |x: &[f64], params: &[f64]| {
            let mut y = vec![0.0; 15];
            Cpu::<f64>::new()
                .linear_forward(
                    &layer,
                    activation,
                    ForwardOperands { x: &x.to_vec(), x_offset: 0, params: &params.to_vec(), pre: None, y: &mut y, y_offset: 0 },
                )
                .unwrap();
            y.iter().zip(&d_y).map(|(y, d)| y * d).sum::<f64>()
        };
        check_gradient("d_x", &x, &d_x, 1e-6, 1e-7, |x| loss(x, &params));
        check_gradient("grads", &params, &grads, 1e-6, 1e-7, |params| loss(&x, params));

        // Through the layer below: d_x ⊙ act′ is the gradient with respect to that layer's pre-activation.
        let below = if activation.needs_pre_activation() {
            x.clone()
        } else {
            x.iter().map(|&x| ppo_kernels::reference::linear::activate(activation, x)).collect()
        };
        let mut through = vec![0.0; 12];
        cpu.linear_backward_input(&layer, &d_pre, &params, Some((activation, &below)), &mut through).unwrap();
        for i in 0..12 {
            let expected = d_x[i] * ppo_kernels::reference::linear::derivative(activation, below[i]);
            assert!((through[i] - expected).abs() < 1e-12, "{activation:?}");
        }
    }
}

#[test]
fn wrong_kernels_are_caught() {
    let Some(mut both) = checked() else { return };
    let source = common::shader("linear");
    let layer = layer(9, 10, 11);
    let mut draw = Draw::new(10);
    let x = both.upload_floats(&draw.floats(90, 1.0)).unwrap();
    let params = both.upload_floats(&draw.floats(121, 1.0)).unwrap();
    let d_pre = both.upload_floats(&draw.floats(99, 1.0)).unwrap();
    let mut y = both.alloc_floats(99).unwrap();
    let mut d_x = both.alloc_floats(90).unwrap();
    let mut grads = both.alloc_floats(121).unwrap();
    for way in Product::ALL {
        both.a.product = Some(way);
        let shifted = plant(source, "b[params.bias_offset + min(column,", "b[params.bias_offset + min(column + 1u,");
        both.a.context.replace_shader("linear", shifted);
        let caught = expect_mismatch(both.linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        ));
        assert_eq!((caught.operation, caught.tensor), ("linear_forward", "y"));
        both.a.context.replace_shader("linear", plant(source, "n * 2.12194440e-4", "n * 2.2e-4"));
        let caught = expect_mismatch(both.linear_forward(
            &layer,
            Activation::Tanh,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        ));
        assert_eq!((caught.operation, caught.tensor), ("linear_forward", "y"));
        both.a.context.replace_shader("linear", plant(source, "return 1.0 - s * s;", "return 1.0 - s;"));
        let caught = expect_mismatch(both.linear_backward_input(&layer, &d_pre, &params, Some((Activation::Tanh, &x)), &mut d_x));
        assert_eq!((caught.operation, caught.tensor), ("linear_backward_input", "d_x"));
        both.a
            .context
            .replace_shader("linear", plant(source, "params.bias_offset + row, column + 1u", "params.bias_offset, column + 1u"));
        let caught = expect_mismatch(both.linear_backward_params(&layer, &d_pre, &x, &mut grads));
        assert_eq!((caught.operation, caught.tensor), ("linear_backward_params", "d_bias"));
    }
    // One row of a tile. Its neighbours in a vec4 of workgroup memory lie a quarter of the tile apart.
    both.a.product = Some(Product::Registers);
    both.a.context.replace_shader("linear", plant(source, "let a7 = a[r7 + i];", "let a7 = a[r6 + i];"));
    let caught = expect_mismatch(both.linear_forward(
        &layer,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    ));
    assert_eq!(caught.element, 7 * 11);
    both.a.product = Some(Product::Workgroup64);
    both.a.context.replace_shader("linear", plant(source, "fma(vec4<f32>(a_low.x), b_low,", "fma(vec4<f32>(a_low.y), b_low,"));
    let caught = expect_mismatch(both.linear_forward(
        &layer,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    ));
    assert_eq!(caught.element, 0);
    // Rows of other quarters, and stages after the first two.
    let deep = Linear { batch: 20, in_features: 40, bias_offset: 440, ..layer };
    let x = both.upload_floats(&draw.floats(800, 1.0)).unwrap();
    let params = both.upload_floats(&draw.floats(451, 1.0)).unwrap();
    let mut y = both.alloc_floats(220).unwrap();
    for (right, wrong) in [("* QUARTER;\n    let of_a", "* 8u;\n    let of_a"), ("stage ^= TEAM;", "stage = TEAM;")] {
        both.a.context.replace_shader("linear", plant(source, right, wrong));
        expect_mismatch(both.linear_forward(
            &deep,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        ));
    }
}

/// Bits of everything that one layer computes.
fn bits_of_a_layer(gpu: &mut Gpu, way: Product, (batch, in_features, out_features): (usize, usize, usize)) -> Vec<u32> {
    gpu.product = Some(way);
    let weight_offset = 3;
    let bias_offset = weight_offset + in_features * out_features + 2;
    let layer = Linear { batch, in_features, out_features, weight_offset, bias_offset };
    let mut draw = Draw::new(12);
    let x = gpu.upload_floats(&draw.floats(5 + batch * in_features, 1.0)).unwrap();
    let d_pre = gpu.upload_floats(&draw.floats(batch * out_features, 1.0)).unwrap();
    let params = gpu.upload_floats(&draw.floats(bias_offset + out_features, 1.0)).unwrap();
    let mut y = gpu.alloc_floats(1 + batch * out_features).unwrap();
    let [mut d_x, mut through] = [0; 2].map(|_| gpu.alloc_floats(batch * in_features).unwrap());
    let mut grads = gpu.alloc_floats(bias_offset + out_features).unwrap();
    gpu.linear_forward(
        &layer,
        Activation::Silu,
        ForwardOperands { x: &x, x_offset: 5, params: &params, pre: None, y: &mut y, y_offset: 1 },
    )
    .unwrap();
    gpu.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
    gpu.linear_backward_input(&layer, &d_pre, &params, Some((Activation::Tanh, &x)), &mut through).unwrap();
    gpu.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
    let outputs = [&y, &d_x, &through, &grads];
    outputs.into_iter().flat_map(|output| gpu.read_floats(output, 0, output.len()).unwrap()).map(f32::to_bits).collect()
}

/// `[batch, in, out]`: single rows and columns, tiles of 64 and 128 and their neighbours, stretches of 256 samples, and depths that end within a stage.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 300, 63),
    (70, 1, 65),
    (65, 66, 1),
    (64, 64, 64),
    (128, 16, 128),
    (130, 37, 129),
    (515, 9, 70),
    (2100, 67, 3),
];

#[test]
fn all_ways_compute_the_same_bits() {
    let Some(mut gpu) = gpu() else { return };
    for shape in SHAPES {
        let plain = bits_of_a_layer(&mut gpu, Product::Plain, shape);
        for way in Product::ALL {
            assert!(bits_of_a_layer(&mut gpu, way, shape) == plain, "{way:?} at {shape:?}");
        }
    }
}

#[test]
fn bits_tell_of_a_sum_in_another_order() {
    let Some(mut gpu) = gpu() else { return };
    let shape = (65, 37, 66);
    let plain = bits_of_a_layer(&mut gpu, Product::Plain, shape);
    let (second, third) = ("multiply_step(sums, stage, first + 1u, at);", "multiply_step(sums, stage, first + 2u, at);");
    let swapped = plant(common::shader("linear"), second, "SECOND").replace(third, second).replace("SECOND", third);
    gpu.context.replace_shader("linear", swapped);
    for way in Product::ALL {
        let same = bits_of_a_layer(&mut gpu, way, shape) == plain;
        assert_eq!(same, matches!(way, Product::Plain | Product::Registers), "{way:?}");
    }
}

#[test]
fn long_batches_are_summed_in_stretches_by_the_shape_alone() {
    for (batch, in_features, out_features, samples) in [
        (64, 64, 64, 256),
        (2048, 64, 64, 256),
        (24_576, 48, 512, 384),
        (24_576, 512, 256, 1536),
        (24_576, 256, 128, 384),
        (24_576, 128, 12, 384),
        (32_768, 256, 256, 1024),
        (1 << 20, 1, 1, 2048),
        (65_536, 4096, 4096, 2048),
    ] {
        assert_eq!(
            layer(batch, in_features, out_features).samples_per_split(),
            samples,
            "{batch}, {in_features}, {out_features}"
        );
    }
}

#[test]
fn names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let fits = layer(2, 3, 4);
    let (x, params) = (cpu.upload_floats(&[0.0; 6]).unwrap(), cpu.upload_floats(&[0.0; 16]).unwrap());
    let mut y = cpu.alloc_floats(8).unwrap();
    for (layer, x_offset, argument) in [
        (Linear { batch: 0, ..fits }, 0, "batch"),
        (Linear { batch: 3, ..fits }, 0, "x"),
        (Linear { in_features: 0, ..fits }, 0, "in_features"),
        (Linear { out_features: 70_000, ..fits }, 0, "out_features"),
        (Linear { out_features: 5, ..fits }, 0, "y"),
        (Linear { weight_offset: 5, ..fits }, 0, "params"),
        (Linear { weight_offset: usize::MAX, ..fits }, 0, "weight_offset"),
        (Linear { bias_offset: 13, ..fits }, 0, "params"),
        (Linear { batch: 1 << 31, in_features: 4, ..fits }, 0, "x"),
        (fits, 1, "x"),
        (fits, usize::MAX, "x_offset"),
    ] {
        match cpu.linear_forward(
            &layer,
            Activation::Tanh,
            ForwardOperands { x: &x, x_offset, params: &params, pre: None, y: &mut y, y_offset: 0 },
        ) {
            Err(Error::Shape { argument: named, .. }) => assert_eq!(named, argument, "{layer:?}"),
            other => panic!("{layer:?}: {other:?}"),
        }
    }
    for (layer, len, argument) in [
        (fits, 15, "grads"),
        (Linear { bias_offset: 11, ..fits }, 16, "bias_offset"),
        (Linear { weight_offset: 3, bias_offset: 0, ..fits }, 16, "bias_offset"),
    ] {
        let mut grads = cpu.alloc_floats(len).unwrap();
        match cpu.linear_backward_params(&layer, &y, &x, &mut grads) {
            Err(Error::Shape { argument: named, .. }) => assert_eq!(named, argument, "{layer:?}"),
            other => panic!("{layer:?}: {other:?}"),
        }
    }
}
