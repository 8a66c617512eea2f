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
        let index = row * params.partial_width + column;
        sum += partials.vectors[index / 4u][index % 4u];
    }
    return sum;
}

// Four inputs by eight outputs, summed over samples.
struct Tile {
    rows: array<vec4<f32>, 8>,
    low_bias: vec4<f32>,
    high_bias: vec4<f32>,
}

fn add_sample(tile: ptr<function, Tile>, h: vec4<f32>, low: vec4<f32>, high: vec4<f32>) {
    (*tile).rows[0] += low.x * h;
    (*tile).rows[1] += low.y * h;
    (*tile).rows[2] += low.z * h;
    (*tile).rows[3] += low.w * h;
    (*tile).rows[4] += high.x * h;
    (*tile).rows[5] += high.y * h;
    (*tile).rows[6] += high.z * h;
    (*tile).rows[7] += high.w * h;
    (*tile).low_bias += low;
    (*tile).high_bias += high;
}

// Of eight outputs.
struct OutputGradient {
    low: vec4<f32>,
    high: vec4<f32>,
}

// Where the gradient of this invocation's sample of a block begins, for outputs from vector o on.
fn own_place(block: u32, place: Place, o: u32) -> u32 {
    return min(block + own_of_block, params.batch - 1u) * place.d_stride + place.d_at + o;
}

// For software adapters, which execute both sides of a branch anyway, both windows that a value may come from are read.
fn actor_gradient(at: u32, is_last: bool) -> OutputGradient {
    let hidden_at = select(at, 0u, is_last);
    let output_at = select(0u, at, is_last);
    return OutputGradient(
        select(actor_d_hidden.vectors[hidden_at], actor_d_output.vectors[output_at], is_last),
        select(actor_d_hidden.vectors[hidden_at + 1u], actor_d_output.vectors[output_at + 1u], is_last),
    );
}

fn critic_gradient(at: u32, is_last: bool) -> OutputGradient {
    let hidden_at = select(at, 0u, is_last);
    let output_at = select(0u, at, is_last);
    return OutputGradient(
        select(critic_d_hidden.vectors[hidden_at], critic_d_output.vectors[output_at], is_last),
        select(critic_d_hidden.vectors[hidden_at + 1u], critic_d_output.vectors[output_at + 1u], is_last),
    );
}

var<workgroup> sh_written: array<Written, INPUT_LANES>;

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
    let o = 2u * workgroup.x;
    let is_first = layer == 0u;
    let is_last = layer + 1u == layers;
    let place = place_of(layer, layers, first_layer);
    let inputs = select(0u, vectors.x, o < vectors.y && workgroup.y < layers);
    // Two of the three loops over samples have none to go through: software adapters skip that, and not a branch.
    let observation_samples = select(0u, params.batch, is_first);
    let actor_samples = select(params.batch, 0u, is_first || is_critic);
    let critic_samples = select(0u, params.batch, !is_first && is_critic);
    written = Written(0.0, NOWHERE);
    for (var first_input = 0u; first_input < inputs; first_input += INPUT_LANES) {
        let k = min(first_input + local, inputs - 1u);
        var tile: Tile;
        for (var block = 0u; block < observation_samples; block += BLOCK) {
            let own_at = own_place(block, place, o);
            let of_actor = actor_gradient(select(own_at, 0u, is_critic), is_last);
            let of_critic = critic_gradient(select(0u, own_at, is_critic), is_last);
            let own_low = select(of_actor.low, of_critic.low, is_critic);
            let own_high = select(of_actor.high, of_critic.high, is_critic);
            for (var i = 0u; i < min(observation_samples - block, BLOCK); i++) {
                let h = observation_window.vectors[(block + i) * place.input_stride + k];
                add_sample(&tile, h, of_block(own_low, i), of_block(own_high, i));
            }
        }
        for (var block = 0u; block < actor_samples; block += BLOCK) {
            let own = actor_gradient(own_place(block, place, o), is_last);
            for (var i = 0u; i < min(actor_samples - block, BLOCK); i++) {
                let h = actor_hidden.vectors[(block + i) * place.input_stride + place.input_at + k];
                add_sample(&tile, h, of_block(own.low, i), of_block(own.high, i));
            }
        }
        for (var block = 0u; block < critic_samples; block += BLOCK) {
            let own = critic_gradient(own_place(block, place, o), is_last);
            for (var i = 0u; i < min(critic_samples - block, BLOCK); i++) {
                let h = critic_hidden.vectors[(block + i) * place.input_stride + place.input_at + k];
                add_sample(&tile, h, of_block(own.low, i), of_block(own.high, i));
            }
        }
        let sizes = params.layers[first_layer + layer];
        for (var row = 0u; row < 8u; row++) {
            let out = 4u * o + row;
            if out < sizes.y && first_input + local < inputs {
                let first = sizes.z + out * sizes.x + 4u * k;
                for (var c = 0u; c < 4u; c++) {
                    if 4u * k + c < sizes.x {
                        store_gradient(first + c, tile.rows[row][c]);
                    }
                }
                if k == 0u {
                    store_gradient(sizes.w + out, select(tile.low_bias[row % 4u], tile.high_bias[row % 4u], row >= 4u));
                }
            }
        }
    }

    // The first workgroup has the statistics and log_std as well. Loops, because software adapters would not skip a branch.
    let group = (workgroup.z * groups.y + workgroup.y) * groups.x + workgroup.x;
    for (var column = local; column < select(0u, SUMS, group == 0u); column += INPUT_LANES) {
        sh_segments[column] = sum_of_partials(column, params.partial_rows);
    }
    for (var d = local; d < select(0u, params.width, GAUSSIAN && group == 0u); d += INPUT_LANES) {
        // The actor's rows come first. The entropy of each sample has slope 1 in each log_std.
        store_gradient(params.log_std_offset + d, sum_of_partials(SUMS + d, params.partial_rows / 2u) - params.ent_coef);
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
