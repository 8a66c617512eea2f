use crate::inputs::{Normals, Rows};
use ppo_kernels::backend::{Cpu, PolicyOps};
use ppo_kernels::kernels::policy::KlArgument;
fn add(hash: &mut u64, x: &[f64]) {
    for x in x {
        *hash = (*hash ^ if x.is_nan() { 1 } else { x.to_bits() }).wrapping_mul(0x100000001b3).rotate_left(5);
    }
}
fn words(x: Vec<u32>) -> Vec<f64> {
    x.into_iter().map(f64::from).collect()
}
fn hash<B: PolicyOps>(b: &mut B) -> u64 {
    let mut h = 7;
    for (i, scale) in [0.1, 1.0, 30.0, 1e4].into_iter().enumerate() {
        for masked in [false, true] {
            for (batch, n) in [(1, 1), (65, 2), (33, 70)] {
                let r = Rows::drawn(i as u64, batch, n, scale, masked);
                let d = r.distribution(b).unwrap();
                add(&mut h, &d.log_probs);
                add(&mut h, &d.probs);
                add(&mut h, &d.logsumexp);
                add(&mut h, &words(d.mode));
                let (a, c) = r.evaluate(b).unwrap();
                add(&mut h, &a);
                add(&mut h, &c);
                let (a, c) = r.sample(b, 3).unwrap();
                add(&mut h, &words(a));
                add(&mut h, &c);
                add(&mut h, &r.backward(b).unwrap());
                add(&mut h, &r.kl(b).unwrap());
                add(&mut h, &r.kl_backward(b, KlArgument::P).unwrap());
                add(&mut h, &r.kl_backward(b, KlArgument::Q).unwrap());
                let n = Normals::drawn(i as u64, batch, n, masked);
                for (a, c) in [
                    n.evaluate(b).unwrap(),
                    n.sample(b, 3).unwrap(),
                    n.backward(b).unwrap(),
                    n.kl_backward(b, KlArgument::P).unwrap(),
                    n.kl_backward(b, KlArgument::Q).unwrap(),
                    n.squashed_backward(b, false).unwrap(),
                    n.squashed_backward(b, true).unwrap(),
                ] {
                    add(&mut h, &a);
                    add(&mut h, &c);
                }
                add(&mut h, &n.kl(b).unwrap());
                for a in n.squashed_evaluate(b).unwrap() {
                    add(&mut h, &a);
                }
            }
        }
    }
    h
}
#[test]
fn zz_bits() {
    println!("policy cpu {:x}", hash(&mut Cpu::<f32>::new()));
    if let Some(mut gpu) = crate::common::gpu() {
        println!("policy gpu {:x}", hash(&mut gpu));
    }
}
