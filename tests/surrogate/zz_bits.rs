use crate::inputs::Inputs;
use crate::{CLIPPED, PLAIN};
use ppo_kernels::backend::{Cpu, SurrogateOps, Variant};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss};
fn add(hash: &mut u64, x: &[f64]) {
    for x in x {
        *hash = (*hash ^ if x.is_nan() { 1 } else { x.to_bits() }).wrapping_mul(0x100000001b3).rotate_left(5);
    }
}
fn hash<B: SurrogateOps>(b: &mut B) -> u64 {
    let mut h = 7;
    let huber = ValueLoss::Huber { delta: 0.7 };
    let ops = [
        CLIPPED,
        PLAIN,
        Surrogate { clip_low: 0.1, clip_high: 0.3, dual_clip: Some(1.5), kl_coef: 0.3, value_loss: huber, ..CLIPPED },
        Surrogate { clip_high: f64::INFINITY, kl_coef: 2.0, ent_coef: -0.5, ..CLIPPED },
    ];
    for (i, op) in ops.iter().enumerate() {
        for (batch, n) in [(1, 1), (65, 2), (333, 70), (5000, 6)] {
            for flag in [false, true] {
                for x in Inputs::new(i as u64, batch, n, 1.0).near_categorical(flag).categorical(b, op, flag).unwrap() {
                    add(&mut h, &x);
                }
                for x in Inputs::new(i as u64, batch, n, 1.0).near_gaussian(flag).gaussian(b, op, flag).unwrap() {
                    add(&mut h, &x);
                }
                for x in Inputs::new(i as u64, batch, n, 1.0).near_gaussian(flag).composed_gaussian(b, op, flag).unwrap() {
                    add(&mut h, &x);
                }
            }
        }
    }
    h
}
#[test]
fn zz_bits() {
    println!("surrogate cpu {:x}", hash(&mut Cpu::<f32>::new()));
    for variant in [Variant::Auto, Variant::Plain, Variant::Fast] {
        if let Some(mut gpu) = crate::common::gpu() {
            gpu.variant = variant;
            println!("surrogate gpu {variant:?} {:x}", hash(&mut gpu));
        }
    }
}
