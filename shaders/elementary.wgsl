// Elementary functions, in front of every shader that needs one. The builtins of some devices are off by hundreds of units, or always to the
// same side, and then so are means over samples, in which errors should cancel. Their twins for f32 are in src/elementary.rs.
//
//   is_nan(x)      asked of the bits: compilers may take x != x for false
//   log_of(x)      log x for x >= 1; 0 and NaN stay as they are, where the builtin is 89 on some devices
//   exp_of(x)      e^x, to a unit in the last place          exp_parts(x)   the same as a power of two and what that lacks
//   expm1_of(x)    e^x - 1, within three units of 2^-24      log_1_plus(x)  log(1 + x), also where 1 + x would round x away
//
// Range         exp_of and exp_parts: any x, NaN too; expm1_of: |x| <= 87; log_1_plus: x >= 0; log_of: x >= 1 or 0

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn log_of(x: f32) -> f32 {
    return select(x, log(max(x, 1.0)), x > 0.0);
}

// 2^n and e^r - 1, the latter by its series, for x = n ln 2 + r with |r| <= ln 2 / 2, |x| <= 87.
fn power_and_rest(x: f32) -> vec2<f32> {
    let n = round(x * 1.4426950409);
    let r = (x - n * 0.693359375) + n * 2.12194440e-4; // ln 2 in two parts, the first, 355/512, times n is exact
    let series = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))));
    return vec2<f32>(bitcast<f32>(u32(i32(n) + 127) << 23u), r + r * r * series);
}

// Whoever multiplies by the one and by the other shares no rounding with anybody else. Beyond the normal range the builtin,
// which makes infinity of NaN on some devices.
fn exp_parts(x: f32) -> vec2<f32> {
    if !(abs(x) < 86.0) {
        return vec2<f32>(select(exp(x), x, is_nan(x)), 0.0);
    }
    let e = power_and_rest(x);
    return e.x * vec2<f32>(1.0, e.y);
}

fn exp_of(x: f32) -> f32 {
    let parts = exp_parts(x);
    return parts.x + parts.y;
}

fn expm1_of(x: f32) -> f32 {
    let e = power_and_rest(x);
    return (e.x - 1.0) + e.x * e.y;
}

// 2 artanh(x / (2 + x)) as a series up to 1, where the builtin may be off by 2^-21.
fn log_1_plus(x: f32) -> f32 {
    if x > 1.0 {
        return log(1.0 + x);
    }
    let t = x / (2.0 + x);
    let t2 = t * t;
    return 2.0 * t * (1.0 + t2 * (1.0 / 3.0 + t2 * (0.2 + t2 * (1.0 / 7.0 + t2 * (1.0 / 9.0 + t2 * (1.0 / 11.0 + t2 * (1.0 / 13.0 + t2 / 15.0)))))));
}

