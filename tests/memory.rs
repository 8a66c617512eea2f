//! What an update is said to take, beside what it does take: of the device as its allocator reports it, of the host as this program's
//! allocator counts it.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ppo_kernels::backend::{Backend, Cpu, Gpu, Memory, PlanMemory, Variant};
use ppo_kernels::bench::{Workload, workloads};
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::ppo::{Config, Learner, PolicyKind, Rollout};
use ppo_kernels::{Error, Result};

/// The system's allocator, counting.
struct Counting;

static IN_USE: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged, and so does what it returns.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// One test at a time: both allocators are everybody's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The four updates of `bench`, with fewer environments and epochs where they have many; one of whose minibatch the sums over samples are
/// split; and a policy of the other kind for each.
fn cases() -> Vec<Workload> {
    let scaled = |workload: Workload| {
        let Config { num_envs, update_epochs, .. } = workload.config;
        let config = Config { num_envs: num_envs.min(4), update_epochs: update_epochs.min(2), ..workload.config };
        Workload { config, ..workload }
    };
    let mut cases: Vec<Workload> = workloads(false).into_iter().map(scaled).collect();
    let config = Config { num_steps: 1024, num_minibatches: 1, update_epochs: 1, ..cases[0].config.clone() };
    cases.push(Workload { name: "one large minibatch", config, ..cases[0].clone() });
    let both = cases.into_iter().flat_map(|workload| {
        let other = match workload.policy {
            PolicyKind::Categorical { actions } => PolicyKind::Gaussian { dim: actions },
            PolicyKind::Gaussian { dim } => PolicyKind::Categorical { actions: dim },
        };
        [workload.clone(), Workload { policy: other, ..workload }]
    });
    both.collect()
}

fn planned<B: PlanMemory>(backend: &B, workload: &Workload) -> Result<u64> {
    let Workload { observation_size, policy, config, .. } = workload;
    Learner::planned_memory_bytes(backend, *observation_size, *policy, config)
}

/// A learner and its rollout, after an action and an update.
fn updated<B: Backend>(backend: &mut B, workload: &Workload) -> (Learner<B>, Rollout<B>) {
    let Workload { observation_size, policy, config, .. } = workload;
    let mut learner = Learner::new(backend, *observation_size, *policy, config.clone()).unwrap();
    let mut rollout = learner.new_rollout(backend).unwrap();
    learner.draw_noise(backend).unwrap();
    learner.act(backend, &mut rollout, 0).unwrap();
    learner.update(backend, &rollout, 1e-4).unwrap();
    (learner, rollout)
}

fn off(planned: u64, measured: u64) -> f64 {
    (planned as f64 / measured as f64 - 1.0).abs()
}

/// What was planned beside what is in use; plans of half the batch and widths have to be outside the bound that the right ones are within.
#[track_caller]
fn compare<B: PlanMemory>(backend: &B, workload: &Workload, in_use: u64, learner: &Learner<B>) {
    let bytes = planned(backend, workload).unwrap();
    assert_eq!(learner.memory_bytes(backend).unwrap(), bytes, "before and after it is made");
    let name = format!("{} with {:?} on {}", workload.name, workload.policy, backend.describe());
    assert!(off(bytes, in_use) < 0.1, "{name}: {bytes} bytes planned, {in_use} in use");
    let Config { num_steps, hidden, .. } = &workload.config;
    let hidden = hidden.iter().map(|width| width / 2).collect();
    let half = Workload { config: Config { num_steps: num_steps / 2, hidden, ..workload.config.clone() }, ..workload.clone() };
    let bytes = planned(backend, &half).unwrap();
    assert!(off(bytes, in_use) > 0.1, "{name}: half of it is {bytes} bytes, all of it {in_use}");
}

fn on_the_device(variant: Variant, form: Option<Form>) {
    let _alone = alone();
    let Some(mut gpu) = common::gpu() else { return };
    (gpu.variant, gpu.fused_form) = (variant, form);
    let any = gpu.upload_floats(&[1.0]).unwrap();
    for workload in cases() {
        // What the device keeps for itself is made with its first submission; what was let go of is freed after one.
        gpu.context.release();
        gpu.read_floats(&any, 0, 1).unwrap();
        let Some(before) = gpu.context.allocated_bytes() else { return };
        let (learner, _rollout) = updated(&mut gpu, &workload);
        let in_use = gpu.context.allocated_bytes().unwrap() - before;
        compare::<Gpu>(&gpu, &workload, in_use, &learner);
        assert_eq!(gpu.context.allocated_bytes().unwrap() - before, in_use, "a plan takes nothing");
    }
}

#[test]
fn an_update_takes_what_it_was_said_to_take_on_the_device() {
    on_the_device(Variant::Auto, None);
}

#[test]
fn what_a_caller_lets_go_of_is_let_go_of() {
    let _alone = alone();
    let Some(mut gpu) = common::gpu() else { return };
    let workload = &cases()[0];
    let mut in_use = Vec::new();
    for _ in 0..4 {
        updated(&mut gpu, workload);
        // What is let go of is noticed and freed with the submission after.
        let any = gpu.upload_floats(&[1.0]).unwrap();
        gpu.read_floats(&any, 0, 1).unwrap();
        let Some(bytes) = gpu.context.allocated_bytes() else { return };
        in_use.push(bytes);
    }
    assert!(in_use.iter().all(|&bytes| bytes == in_use[0]), "{in_use:?}");
    let (_learner, _rollout) = updated(&mut gpu, workload);
    assert!(gpu.context.allocated_bytes().unwrap() > in_use[0], "a learner takes something");
}

#[test]
fn an_update_of_plain_operations_takes_what_it_was_said_to_take_on_the_device() {
    on_the_device(Variant::Plain, None);
}

/// Whatever suits the adapter: a plan has to go by what was asked for.
#[test]
fn an_update_by_each_form_takes_what_it_was_said_to_take_on_the_device() {
    for form in [Form::ByTile, Form::ByLayer] {
        on_the_device(Variant::Auto, Some(form));
    }
}

#[test]
fn an_update_takes_what_it_was_said_to_take_on_the_host() {
    let _alone = alone();
    // A thread's room for packed matrices is made with its first product, and stays.
    rayon::broadcast(|_| drop(updated(&mut Cpu::<f32>::new(), &cases()[0])));
    for workload in cases() {
        let mut cpu = Cpu::<f32>::new();
        let before = IN_USE.load(Relaxed);
        let (learner, _rollout) = updated(&mut cpu, &workload);
        let in_use = IN_USE.load(Relaxed) - before;
        compare(&cpu, &workload, in_use, &learner);
    }
}

#[test]
fn the_oracle_takes_twice_as_much_for_what_is_not_a_word() {
    let _alone = alone();
    let [f32s, f64s] = [planned(&Cpu::<f32>::new(), &cases()[0]).unwrap(), planned(&Cpu::<f64>::new(), &cases()[0]).unwrap()];
    // Words: actions of a rollout and of a minibatch, permutations of two epochs, four of control.
    let words = 4 * (512 + 128 + 2 * 512 + 4);
    assert_eq!(f64s - words, 2 * (f32s - words));
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_allocated() {
    let _alone = alone();
    let huge = Workload {
        name: "huge",
        observation_size: 1 << 20,
        policy: PolicyKind::Categorical { actions: 2 },
        config: Config { num_envs: 1 << 16, activation: Activation::Tanh, ..Config::default() },
    };
    assert!(planned(&Cpu::<f32>::new(), &huge).unwrap() > 1 << 45, "a count needs no memory");
    if let Some(gpu) = common::gpu() {
        assert!(matches!(planned(&gpu, &huge), Err(Error::LimitExceeded { .. })));
    }
    let invalid = Workload { config: Config { num_envs: 0, ..Config::default() }, ..huge };
    assert!(matches!(planned(&Cpu::<f32>::new(), &invalid), Err(Error::InvalidValue { .. } | Error::Shape { .. })));
}
