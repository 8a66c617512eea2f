// What a minibatch's samples make of the parameters, behind samples.wgsl. Header: shared.wgsl.

@group(0) @binding(12) var<uniform> observation_window: Window;
@group(0) @binding(13) var<uniform> partials: Window;
@group(0) @binding(22) var<uniform> actor_hidden: Window;
@group(0) @binding(23) var<uniform> actor_d_hidden: Window;
@group(0) @binding(24) var<uniform> actor_d_output: Window;
@group(0) @binding(25) var<uniform> critic_hidden: Window;
@group(0) @binding(26) var<uniform> critic_d_hidden: Window;
@group(0) @binding(27) var<uniform> critic_d_output: Window;

// ------------------------------------------------------------------------------------------------ gradients

// A layer's place in the windows: vectors a sample and its first vector in them, of the inputs and of the gradients.
struct Place {
    input_stride: u32,
    input_at: u32,
    d_stride: u32,
    d_at: u32,
}

fn place_of(layer: u32, layers: u32, first_layer: u32) -> Place {
    var hidden = 0u;
    var input_at = 0u;
    var d_at = 0u;
    for (var l = 0u; l + 1u < layers; l++) {
        input_at = select(input_at, hidden, l + 1u == layer);
        d_at = select(d_at, hidden, l == layer);
        hidden += params.packed_layers[first_layer + l].y;
    }
    let at = params.packed_layers[first_layer + layer];
    return Place(
        select(hidden, params.observation_vectors, layer == 0u),
        input_at,
        select(hidden, at.y, layer + 1u == layers),
        d_at,
    );
}

fn sum_of_partials(column: u32, rows: u32) -> f32 {
    var sum = 0.0;
    for (var row = 0u; row < rows; row++) {
        sum += partials.vectors[row * params.partial_width + column].x;
    }
    return sum;
}

// Of sixteen outputs.
struct OutputGradient {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// Four inputs by sixteen outputs, summed over samples.
struct Tile {
    rows: array<vec4<f32>, 16>,
    biases: array<vec4<f32>, 4>,
}

fn add_four(tile: ptr<function, Tile>, outputs: u32, h: vec4<f32>, d: vec4<f32>) {
    (*tile).rows[4u * outputs] += d.x * h;
    (*tile).rows[4u * outputs + 1u] += d.y * h;
    (*tile).rows[4u * outputs + 2u] += d.z * h;
    (*tile).rows[4u * outputs + 3u] += d.w * h;
    (*tile).biases[outputs] += d;
}

// Sample i of a block, of which `own` has the gradients of this invocation's sample.
fn add_sample(tile: ptr<function, Tile>, h: vec4<f32>, own: OutputGradient, i: u32) {
    add_four(tile, 0u, h, of_block(own.a, i));
    add_four(tile, 1u, h, of_block(own.b, i));
    add_four(tile, 2u, h, of_block(own.c, i));
    add_four(tile, 3u, h, of_block(own.d, i));
}

// Where the gradients of this invocation's sample of a block are, in the windows of hidden layers and of the output. For software adapters, which
// execute both sides of a branch anyway, both are read: one of them at 0.
struct Own {
    hidden_at: u32,
    output_at: u32,
    // Vectors on to the second eight outputs. Where a layer has no more than eight, they are the first again, and are not stored.
    second: u32,
    is_last: bool,
    is_sample: bool,
}

// `more`: whether the layer has vectors of outputs from o + 2 on.
fn own_of(block: u32, place: Place, o: u32, more: bool, is_last: bool) -> Own {
    let sample = block + own_of_block;
    let at = min(sample, params.batch - 1u) * place.d_stride + place.d_at + o;
    return Own(select(at, 0u, is_last), select(0u, at, is_last), select(0u, 2u, more), is_last, sample < params.batch);
}

// A sample past the end adds nothing.
fn chosen(own: Own, hidden: vec4<f32>, output: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), select(hidden, output, own.is_last), own.is_sample);
}

fn actor_gradient(own: Own) -> OutputGradient {
    return OutputGradient(
        chosen(own, actor_d_hidden.vectors[own.hidden_at], actor_d_output.vectors[own.output_at]),
        chosen(own, actor_d_hidden.vectors[own.hidden_at + 1u], actor_d_output.vectors[own.output_at + 1u]),
        chosen(own, actor_d_hidden.vectors[own.hidden_at + own.second], actor_d_output.vectors[own.output_at + own.second]),
        chosen(own, actor_d_hidden.vectors[own.hidden_at + own.second + 1u], actor_d_output.vectors[own.output_at + own.second + 1u]),
    );
}

fn critic_gradient(own: Own) -> OutputGradient {
    return OutputGradient(
        chosen(own, critic_d_hidden.vectors[own.hidden_at], critic_d_output.vectors[own.output_at]),
        chosen(own, critic_d_hidden.vectors[own.hidden_at + 1u], critic_d_output.vectors[own.output_at + 1u]),
        chosen(own, critic_d_hidden.vectors[own.hidden_at + own.second], critic_d_output.vectors[own.output_at + own.second]),
        chosen(own, critic_d_hidden.vectors[own.hidden_at + own.second + 1u], critic_d_output.vectors[own.output_at + own.second + 1u]),
    );
}

// As the parameters are packed.
@group(0) @binding(16) var<storage, read_write> grads: array<vec4<f32>>;

// Vector `place`, of which `count` elements are those of parameters from `first` on.
fn store_gradients(place: u32, first: u32, count: u32, gradient: vec4<f32>) {
    let stored = of_parameters(gradient, count);
    grads[place] = stored;
    note(first, stored.x);
    note(first + 1u, stored.y);
    note(first + 2u, stored.z);
    note(first + 3u, stored.w);
}

var<workgroup> sh_written: array<Written, INPUT_LANES>;

// Together with what the first `count` invocations of a block have read.
fn added(all: Written, own: Written, count: u32) -> Written {
    var sum = all;
    for (var i = 0u; i < count; i++) {
        sum.squares += bitcast<f32>(word_of_block(bitcast<u32>(own.squares), i));
        sum.first_bad = min(sum.first_bad, word_of_block(own.first_bad, i));
    }
    return sum;
}

@compute @workgroup_size(INPUT_LANES)
fn parameters_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    join_subgroup();
    let is_critic = workgroup.z == 1u;
    let layers = select(params.actor_layers, params.critic_layers, is_critic);
    let first_layer = select(0u, MOST_LAYERS, is_critic);
    // Networks of fewer layers than the other have nothing to do in the last workgroups.
    let layer = min(workgroup.y, layers - 1u);
    let vectors = params.packed_layers[first_layer + layer];
    let o = 4u * workgroup.x;
    let more = o + 2u < vectors.y;
    let is_first = layer == 0u;
    let is_last = layer + 1u == layers;
    let place = place_of(layer, layers, first_layer);
    let inputs = select(0u, vectors.x, o < vectors.y && workgroup.y < layers);
    // Three of the four loops over samples have none to go through: software adapters skip that, and not a branch.
    let of_actor = select(params.batch, 0u, is_critic);
    let of_critic = select(0u, params.batch, is_critic);
    let first_of_actor = select(0u, of_actor, is_first);
    let first_of_critic = select(0u, of_critic, is_first);
    let later_of_actor = select(of_actor, 0u, is_first);
    let later_of_critic = select(of_critic, 0u, is_first);
    let last = params.batch - 1u;
    written = Written(0.0, NOWHERE);
    for (var first_input = 0u; first_input < inputs; first_input += INPUT_LANES) {
        let k = min(first_input + local, inputs - 1u);
        var tile: Tile;
        for (var block = 0u; block < first_of_actor; block += BLOCK) {
            let own = actor_gradient(own_of(block, place, o, more, is_last));
            for (var i = 0u; i < min(first_of_actor - block, BLOCK); i += UNROLLED) {
                add_sample(&tile, observation_window.vectors[(block + i) * place.input_stride + k], own, i);
                if UNROLLED == 2u {
                    add_sample(&tile, observation_window.vectors[min(block + i + 1u, last) * place.input_stride + k], own, i + 1u);
                }
            }
        }
        for (var block = 0u; block < later_of_actor; block += BLOCK) {
            let own = actor_gradient(own_of(block, place, o, more, is_last));
            for (var i = 0u; i < min(later_of_actor - block, BLOCK); i += UNROLLED) {
                add_sample(&tile, actor_hidden.vectors[(block + i) * place.input_stride + place.input_at + k], own, i);
                if UNROLLED == 2u {
                    add_sample(&tile, actor_hidden.vectors[min(block + i + 1u, last) * place.input_stride + place.input_at + k], own, i + 1u);
                }
            }
        }
        for (var block = 0u; block < first_of_critic; block += BLOCK) {
            let own = critic_gradient(own_of(block, place, o, more, is_last));
            for (var i = 0u; i < min(first_of_critic - block, BLOCK); i += UNROLLED) {
                add_sample(&tile, observation_window.vectors[(block + i) * place.input_stride + k], own, i);
                if UNROLLED == 2u {
                    add_sample(&tile, observation_window.vectors[min(block + i + 1u, last) * place.input_stride + k], own, i + 1u);
                }
            }
        }
        for (var block = 0u; block < later_of_critic; block += BLOCK) {
            let own = critic_gradient(own_of(block, place, o, more, is_last));
            for (var i = 0u; i < min(later_of_critic - block, BLOCK); i += UNROLLED) {
                add_sample(&tile, critic_hidden.vectors[(block + i) * place.input_stride + place.input_at + k], own, i);
                if UNROLLED == 2u {
                    add_sample(&tile, critic_hidden.vectors[min(block + i + 1u, last) * place.input_stride + place.input_at + k], own, i + 1u);
                }
            }
        }
        let sizes = params.layers[first_layer + layer];
        for (var row = 0u; row < 16u; row++) {
            let out = 4u * o + row;
            if out < 4u * vectors.y && first_input + local < inputs {
                let count = select(0u, beyond(sizes.x, 4u * k), out < sizes.y);
                store_gradients(vectors.z + out * vectors.x + k, sizes.z + out * sizes.x + 4u * k, count, tile.rows[row]);
            }
        }
        for (var four = 0u; four < 4u; four++) {
            let out = o + four;
            if out < vectors.y && first_input + local == 0u {
                store_gradients(vectors.w + out, sizes.w + 4u * out, beyond(sizes.y, 4u * out), tile.biases[four]);
            }
        }
    }

    // The first workgroup has the statistics and log_std as well. Loops, because software adapters would not skip a branch.
    let group = (workgroup.z * groups.y + workgroup.y) * groups.x + workgroup.x;
    for (var column = local; column < select(0u, SUMS, group == 0u); column += INPUT_LANES) {
        sh_segments[column] = sum_of_partials(column, params.partial_rows);
    }
    for (var i = local; i < select(0u, params.packed_vectors - params.packed_log_std, GAUSSIAN && group == 0u); i += INPUT_LANES) {
        let first = 4u * i;
        var sums = vec4<f32>();
        for (var c = 0u; c < 4u; c++) {
            // The actor's rows come first.
            sums[c] = sum_of_partials(SUMS + min(first + c, params.width - 1u), params.partial_rows / 2u);
        }
        // The entropy of each sample has slope 1 in each log_std.
        let gradient = sums - vec4<f32>(params.ent_coef);
        store_gradients(params.packed_log_std + i, params.log_std_offset + first, beyond(params.width, first), gradient);
    }
    sh_written[local] = written;
    workgroupBarrier();
    for (var row = local; row < select(0u, 1u, group == 0u); row++) {
        write_stats();
    }
    var all = Written(0.0, NOWHERE);
    for (var block = 0u; block < INPUT_LANES; block += BLOCK) {
        all = added(all, sh_written[block + own_of_block], BLOCK);
    }
    if local == 0u {
        squares[group] = vec4<u32>(bitcast<u32>(all.squares), all.first_bad, 0u, 0u);
    }
}
