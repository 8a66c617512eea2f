// PPO's objective, its gradient, and the statistics everybody logs.
//
//   log_ratio  = logp - old_logp,  ratio = exp(log_ratio),  clipped_ratio = clamp(ratio, ratio_low, ratio_high)
//   pg_loss    = max(-A * ratio, -A * clipped_ratio), at most -dual_clip * A where A < 0
//   v_loss     = (v - R)^2 / 2, or the larger of that and (old_v + clamp(v - old_v, +-range) - R)^2 / 2, or Huber's
//   kl_penalty = exp(-log_ratio) - 1 + log_ratio
//   loss       = mean(pg_loss) - ent_coef * mean(entropy) + vf_coef * mean(v_loss) + kl_coef * mean(kl_penalty)
//
// Gradients are of loss. Where max, min and clamp have a choice they are those of torch's autograd: a ratio or value on the edge of its clip
// counts as inside, and two equal squares of a clipped value share the gradient, as do two equal sides of the dual clip.
//
//   elementwise       d loss / d logp and d loss / d value from log-probs, for any distribution
//   categorical, categorical_tiles
//                     the same through log-softmax: d loss / d logits
//   gaussian, gaussian_tiles
//                     the same through a diagonal Gaussian whose log_std [dim] is shared by the batch: d_mean, and sums for d_log_std
//   finish            partial sums to a row of stats;  finish_gaussian  also to d_log_std
//   entropy_gradient  d_entropy[i] = -ent_coef / batch, for the composition of plain operations
//   stop_on_kl        control[STOP] = TARGET_KL if stats[row, APPROX_KL] > threshold and nothing stopped before
//
// Behind this stands surrogate.wgsl, or tiles.wgsl with *_tiles: there rows come and go in the order in which they lie in memory, by way of
// workgroup memory. Hardware, whose invocations write rows of a few elements at a multiple of the cost otherwise, takes these.
//
// Shapes        samples [batch, 4] = (old_logp, advantage, return, old_value); values, logp, entropy, d_logp, d_values [batch];
//               terms [batch, 8]; logits, mask, d_logits [batch, width]; mean, d_mean, actions of the Gaussian [batch, width];
//               log_std, d_log_std [width] from their offsets on; partials [partial_rows, partial_width]; stats [rows, 16]; control [4]
// Grid          one workgroup a row of partials, linear, folded into two dimensions past 65 535: it takes 256 samples, in `categorical`
//               256 / LANES, in *_tiles 64 at a time until there are none. finish: one workgroup; finish_gaussian: one for each 8 columns of
//               partials
// Workgroup     256 invocations, one a sample; in `categorical` LANES a sample, side by side in its row; *_tiles: 64
// Bindings      0 params; 1 samples, 2 values, 3 d_values, 4 partials, 5 stats; elementwise: 6 logp, 7 entropy, 8 terms, 9 d_logp;
//               categorical: 10 logits, 11 mask, 12 actions, 13 d_logits (anything may be bound as the mask where MASKED = 0);
//               gaussian: 14 mean, 15 log_std, 16 its actions, 17 d_mean, finish_gaussian: 18 d_log_std; 19 d_entropy, 20 control
// Preconditions batch, width >= 1; batch * width < 2^32; of *_tiles WIDTH = width, at most 49. An action that is no index gives NaN. A masked
//               action has logp 0 without gradient
//               Indices proven: row < batch, j < width, group < partial_rows and an action from a buffer < width are compared first; rows of
//               partials hold 8 columns and, rounded up to 8, width more, and are clamped where they are summed; the mask is read only where MASKED; *_tiles read no element past
//               the batch's last, and compare before they write
// Determinism   every sum has one order that depends on the shapes and the form alone
// Range         a log_ratio above 88 makes ratio infinite, and below -88 kl_penalty: nothing is clamped in silence. But 0 times infinity is 0: an
//               advantage of 0 has no loss and no gradient, a term whose coefficient is 0 stays out of both, and a sample without
//               gradient adds none to mean and log_std
// Tolerance     kernels/surrogate/tolerance.rs

struct SurrogateParams {
    batch: u32,
    width: u32,
    partial_rows: u32,
    partial_width: u32,
    stats_row: u32,
    value_loss: u32,
    log_std_offset: u32,
    d_log_std_offset: u32,
    ratio_low: f32,
    ratio_high: f32,
    dual_clip: f32,
    value_range: f32,
    vf_coef: f32,
    ent_coef: f32,
    kl_coef: f32,
    one_over_batch: f32,
    not_a_number: f32,
}

override MASKED: u32 = 0u;

@group(0) @binding(0) var<uniform> params: SurrogateParams;
@group(0) @binding(1) var<storage, read> samples: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_values: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;
@group(0) @binding(5) var<storage, read_write> stats: array<f32>;
@group(0) @binding(10) var<storage, read> logits: array<f32>;
@group(0) @binding(11) var<storage, read> mask: array<u32>;
@group(0) @binding(12) var<storage, read> actions: array<u32>;
@group(0) @binding(13) var<storage, read_write> d_logits: array<f32>;
@group(0) @binding(14) var<storage, read> mean: array<f32>;
@group(0) @binding(15) var<storage, read> log_std: array<f32>;
@group(0) @binding(16) var<storage, read> gaussian_actions: array<f32>;
@group(0) @binding(17) var<storage, read_write> d_mean: array<f32>;

fn store_partial(index: u32, sum: f32) {
    partials[index] = sum;
}

fn workgroup_index(workgroup: vec3<u32>, groups: vec3<u32>) -> u32 {
    return workgroup.y * groups.x + workgroup.x;
}
