// What all ways of making linear's products share: parameters, bindings, stretches of depth, and what is done to a product before it is stored.
// Shapes and preconditions as in linear.wgsl.

struct LinearParams {
    rows: u32,
    columns: u32,
    depth: u32,
    depth_per_split: u32,
    splits: u32,
    a_offset: u32,
    a_row_stride: u32,
    a_depth_stride: u32,
    b_offset: u32,
    b_column_stride: u32,
    b_depth_stride: u32,
    bias_offset: u32,
    output_offset: u32,
}

@group(0) @binding(0) var<uniform> params: LinearParams;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> saved: array<f32>;

struct Stretch {
    begin: u32,
    end: u32,
}

fn stretch(split: u32) -> Stretch {
    let begin = split * params.depth_per_split;
    return Stretch(begin, min(begin + params.depth_per_split, params.depth));
}

// What a product meets is read apart from where it is stored, in bounds for outputs past the end too: a branch around both would have every read wait
// for the one before.
fn bias_of(column: u32) -> f32 {
    return b[params.bias_offset + min(column, params.columns - 1u)];
}

fn saved_at(row: u32, column: u32) -> f32 {
    return saved[min(row, params.rows - 1u) * params.columns + min(column, params.columns - 1u)];
}

fn store_forward(row: u32, column: u32, product: f32, bias: f32) {
    output[params.output_offset + row * params.columns + column] = activate(product + bias);
}

fn store_backward_input(row: u32, column: u32, product: f32, kept: f32) {
    output[row * params.columns + column] = product * derivative(kept);
}

// Where element (row, column) of dW|db lies among the parameters.
fn parameter_index(row: u32, column: u32) -> u32 {
    let weight = params.output_offset + row * (params.columns - 1u) + column;
    return select(weight, params.bias_offset + row, column + 1u == params.columns);
}

// One stretch is the result; several are kept side by side for sum_splits.
fn store_backward_params(split: u32, row: u32, column: u32, product: f32) {
    let part = (split * params.rows + row) * params.columns + column;
    output[select(part, parameter_index(row, column), params.splits == 1u)] = product;
}
