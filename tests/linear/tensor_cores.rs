//! The same on tensor cores, in each of their precisions.

use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, LinearOps, Memory, Precision};
use ppo_kernels::kernels::linear::{Activation, ForwardOperands};

use crate::common::{self, Draw, ON_TENSOR_CORES, checked_on_tensor_cores, expect_mismatch, gpu_on_tensor_cores, plant};
use crate::{ALL, layer, run_layer};

macro_rules! on_tensor_cores {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() {
            for mut backend in ON_TENSOR_CORES.into_iter().filter_map(gpu_on_tensor_cores) {
                crate::$name(&mut backend)
            }
        })+
    };
}

on_tensor_cores!(
    a_layer_by_hand,
    activations_have_their_known_values,
    offsets_leave_the_neighbours_alone,
    products_agree_with_the_triple_loop,
    a_long_batch_is_summed_accurately,
    the_same_input_gives_the_same_bits,
);

#[test]
fn tensor_cores_agree_with_the_twin_at_edge_sizes() {
    for (mut both, _) in ON_TENSOR_CORES.into_iter().filter_map(checked_on_tensor_cores) {
        agrees_at_edge_sizes_of_tensor_cores(&mut both);
    }
}

fn agrees_at_edge_sizes_of_tensor_cores(both: &mut CrossCheck<Gpu, Cpu<f64>>) {
    let mut draw = Draw::new(12);
    // Around matrices of 8 and 16, the depth of 32 in workgroup memory, the tile of 64 and the stretch of 2048 samples, with and without vectors of
    // four; then, for each product, enough of it for tiles of 128, which end beyond its last row and column.
    for (i, (batch, inputs, outputs)) in [
        (1, 1, 1),
        (7, 8, 9),
        (15, 16, 17),
        (16, 31, 15),
        (33, 32, 16),
        (64, 64, 64),
        (65, 63, 129),
        (63, 65, 1),
        (1, 300, 63),
        (129, 1, 64),
        (2047, 17, 5),
        (2049, 9, 66),
        (4097, 1, 1),
        (5, 4, 8),
        (68, 132, 60),
        (2052, 36, 68),
        (16_390, 20, 124),
        (16_390, 123, 19),
        (8192, 252, 252),
    ]
    .into_iter()
    .enumerate()
    {
        run_layer(both, &mut draw, &layer(batch, inputs, outputs), ALL[i % ALL.len()]);
    }
    for activation in ALL {
        run_layer(both, &mut draw, &layer(33, 17, 29), activation);
    }
}

#[test]
fn the_size_of_a_tile_on_tensor_cores_changes_no_bit() {
    for precision in ON_TENSOR_CORES {
        let Some(mut gpu) = gpu_on_tensor_cores(precision) else { return };
        if !common::has_large_tiles(&gpu) {
            println!("skipped, too little workgroup memory for tiles of 128: {precision:?}");
            continue;
        }
        the_size_of_a_tile_changes_no_bit(&mut gpu);
    }
}

fn the_size_of_a_tile_changes_no_bit(gpu: &mut Gpu) {
    let (many, few) = (16_384, 64);
    let mut draw = Draw::new(15);
    let x = gpu.upload_floats(&draw.floats(many * 48, 1.0)).unwrap();
    let params = gpu.upload_floats(&draw.floats(48 * 128 + 128, 1.0)).unwrap();
    let [in_large_tiles, in_small_ones] = [many, few].map(|batch| {
        let mut y = gpu.alloc_floats(batch * 128).unwrap();
        gpu.linear_forward(
            &layer(batch, 48, 128),
            Activation::Tanh,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        )
        .unwrap();
        gpu.read_floats(&y, 0, few * 128).unwrap()
    });
    assert_eq!(in_large_tiles, in_small_ones);
}

#[test]
fn wrong_products_on_tensor_cores_are_caught() {
    for precision in ON_TENSOR_CORES {
        let Some((both, shader)) = checked_on_tensor_cores(precision) else { return };
        // What belongs to low parts alone.
        let of_lows: &[(&str, &str)] = match precision {
            Precision::F16x3TensorCore => &[
                ("coopMultiplyAdd(a0_low, b_left,", "coopMultiplyAdd(a0, b_left,"),
                ("coopMultiplyAdd(a1, b_right_low,", "coopMultiplyAdd(a1, b_right,"),
                ("staging[i * WORKGROUP_SIZE + local] / LOW_SCALE", "0.0"),
                ("load_b(LOW, part.y, k)", "load_b(LOW, part.y + SIZE, k)"),
            ],
            _ => &[],
        };
        wrong_products_are_caught(both, shader, of_lows);
    }
}

fn wrong_products_are_caught(mut both: CrossCheck<Gpu, Cpu<f64>>, shader: &'static str, of_lows: &[(&str, &str)]) {
    let source = common::shader(shader);
    let (batch, inputs, outputs) = (70, 50, 40);
    let layer = layer(batch, inputs, outputs);
    let mut draw = Draw::new(13);
    let x = both.upload_floats(&draw.floats(batch * inputs, 1.0)).unwrap();
    let params = both.upload_floats(&draw.floats(inputs * outputs + outputs, 1.0)).unwrap();
    let d_pre = both.upload_floats(&draw.floats(batch * outputs, 1.0)).unwrap();
    let mut y = both.alloc_floats(batch * outputs).unwrap();
    let mut d_x = both.alloc_floats(batch * inputs).unwrap();
    let mut grads = both.alloc_floats(inputs * outputs + outputs).unwrap();
    // A bias, an operand's last elements, one of the four matrices, one step of the depth.
    for &(right, wrong) in [
        ("b[params.bias_offset + min(column,", "b[params.bias_offset + min(column + 1u,"),
        ("select(vector % ALONG * 4u + FOUR,", "select(min(vector % ALONG * 4u + FOUR, vec4<u32>(30u)),"),
        ("coopMultiplyAdd(a1, b_right", "coopMultiplyAdd(a0, b_right"),
        ("k < DEPTH; k += SIZE", "k + SIZE < DEPTH; k += SIZE"),
    ]
    .iter()
    .chain(of_lows)
    {
        both.a.context.replace_shader(shader, plant(source, right, wrong));
        let caught = expect_mismatch(both.linear_forward(
            &layer,
            Activation::Identity,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
        ));
        assert_eq!((caught.operation, caught.tensor), ("linear_forward", "y"), "{wrong}");
    }
    for (right, wrong) in [("return 1.0 - s * s;", "return 1.0 - s;"), ("power_of_two(-exponent_not_below(params.rows))", "0.5")]
    {
        both.a.context.replace_shader(shader, plant(source, right, wrong));
        let caught = expect_mismatch(both.linear_backward_input(&layer, &d_pre, &params, Some((Activation::Tanh, &x)), &mut d_x));
        assert_eq!((caught.operation, caught.tensor), ("linear_backward_input", "d_x"), "{wrong}");
    }
    for (right, wrong, tensor) in [
        ("power_of_two(-exponent_not_below(params.depth))", "0.5", "d_weights"),
        ("params.bias_offset + row, column + 1u", "params.bias_offset, column + 1u", "d_bias"),
        ("other < 4u * WORKGROUP_SIZE; other += TILE", "other < TILE; other += TILE", "d_bias"),
        ("return select(vec4<f32>(), read_a(at), k < vec4<u32>(end));", "return read_a(at);", "d_bias"),
        ("vec4<u32>(params.rows - 1u)", "vec4<u32>(params.rows - 2u)", "d_weights"),
    ] {
        both.a.context.replace_shader(shader, plant(source, right, wrong));
        let caught = expect_mismatch(both.linear_backward_params(&layer, &d_pre, &x, &mut grads));
        assert_eq!((caught.operation, caught.tensor), ("linear_backward_params", tensor), "{wrong}");
    }
}
