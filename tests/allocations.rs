//! What an update on the CPU allocates once one has run before: its report, and nothing for its steps.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ppo_kernels::backend::{Cpu, Memory};
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::ppo::{Config, Learner, PolicyKind};

/// The system's allocator, counting the allocations of all threads while it is told to.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static OF_PRODUCTS: AtomicUsize = AtomicUsize::new(0);
/// Where the others came from.
static PLACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    thread_local!(static COUNTING: Cell<bool> = const { Cell::new(false) });
    if !COUNTS.load(Relaxed) || COUNTING.replace(true) {
        return;
    }
    let place = Backtrace::force_capture().to_string();
    // The crate for matrix products packs their operands into room that it allocates at each call, and takes none of ours.
    if place.contains("gemm_common::") || place.contains("gemm_f32::") {
        OF_PRODUCTS.fetch_add(1, Relaxed);
    } else if place.contains("rayon_core::") {
        // On a thread of the pool, as all of an update is; not what runs the tests.
        PLACES.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
    COUNTING.set(false);
}

// SAFETY: every call goes to the system's allocator unchanged, and so does what it returns.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// One test at a time: the counts are everybody's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often matrix products allocated while `body` ran, and where in the crate everything else did.
fn allocations<R>(body: impl FnOnce() -> R) -> (R, usize, Vec<String>) {
    let take = || std::mem::take(&mut *PLACES.lock().unwrap_or_else(PoisonError::into_inner));
    take();
    let before = OF_PRODUCTS.load(Relaxed);
    COUNTS.store(true, Relaxed);
    let result = body();
    COUNTS.store(false, Relaxed);
    let in_the_crate = |place: &String| {
        let lines: Vec<&str> = place.lines().filter(|line| line.contains("./src/") || line.contains("./tests/")).collect();
        // The first are those of the allocator above.
        lines.into_iter().skip(2).take(4).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    // A pool of threads takes jobs from outside in blocks of some dozens, and allocates each block.
    let places = take();
    let places = places.iter().filter(|place| !place.contains("crossbeam_deque::")).map(in_the_crate).collect();
    (result, OF_PRODUCTS.load(Relaxed) - before, places)
}

/// Updates, of which at least one has to find everything made: how much room is in use at the same time is up to the threads, and with it
/// when there is enough for all.
const UPDATES: usize = 12;
/// The words and the rows of statistics that are read back, the log among the results, and the schedule of the learning rate: one each, whatever
/// the number of steps.
const REPORT: usize = 4;

fn a_warm_update_allocates_for_its_report_only(observation_size: usize, policy: PolicyKind, config: &Config) {
    let _alone = alone();
    let mut cpu = Cpu::<f32>::new();
    let mut learner = Learner::new(&mut cpu, observation_size, policy, config.clone()).unwrap();
    let mut rollout = learner.new_rollout(&mut cpu).unwrap();
    let values: Vec<f32> = (0..config.batch_size() * observation_size).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    cpu.write_floats(&mut rollout.observations, 0, &values).unwrap();
    cpu.write_floats(&mut rollout.rewards, 0, &values[..config.batch_size()]).unwrap();
    learner.draw_noise(&mut cpu).unwrap();
    (0..config.num_steps).for_each(|step| learner.act(&mut cpu, &mut rollout, step).unwrap());
    let updates = (0..UPDATES).map(|_| {
        let update = || learner.update(&mut cpu, &rollout, 1e-4).unwrap();
        let (stats, of_products, places) = allocations(update);
        assert_eq!(stats.steps, config.update_epochs * config.num_minibatches);
        println!("{} beside {of_products} of matrix products", places.len());
        places
    });
    let fewest = updates.min_by_key(Vec::len).unwrap();
    assert_eq!(fewest.len(), REPORT, "{fewest:#?}");
}

fn small() -> Config {
    Config { num_envs: 4, num_steps: 128, update_epochs: 4, num_minibatches: 4, hidden: vec![64, 64], ..Config::default() }
}

/// Minibatches of 1024 samples: four tiles.
fn tiled() -> Config {
    Config { num_envs: 16, hidden: vec![128, 64], activation: Activation::Elu, num_minibatches: 2, ..small() }
}

#[test]
fn of_a_small_network() {
    a_warm_update_allocates_for_its_report_only(4, PolicyKind::Categorical { actions: 2 }, &small());
}

#[test]
fn of_a_small_gaussian_one() {
    a_warm_update_allocates_for_its_report_only(17, PolicyKind::Gaussian { dim: 6 }, &small());
}

#[test]
fn of_one_that_goes_in_tiles() {
    a_warm_update_allocates_for_its_report_only(48, PolicyKind::Categorical { actions: 9 }, &tiled());
}

#[test]
fn of_a_gaussian_one_that_goes_in_tiles() {
    a_warm_update_allocates_for_its_report_only(48, PolicyKind::Gaussian { dim: 12 }, &tiled());
}

/// Norms, moments and elementwise loops in several parts; pre-activations; ends after a step.
#[test]
fn of_a_large_one() {
    let config = Config {
        num_envs: 130,
        update_epochs: 1,
        num_minibatches: 8,
        hidden: vec![300, 64],
        activation: Activation::GeluTanh,
        bootstrap_truncated: true,
        ..tiled()
    };
    a_warm_update_allocates_for_its_report_only(48, PolicyKind::Gaussian { dim: 12 }, &config);
}

#[test]
fn an_allocation_on_a_thread_of_the_pool_is_seen() {
    let _alone = alone();
    let mut cpu = Cpu::<f32>::new();
    let mut allocate = || {
        cpu.run_together(|_| {
            let one = || drop(black_box(vec![0u8; 100]));
            rayon::join(one, one);
        });
    };
    // The first ones start the pool.
    let runs = (0..UPDATES).map(|_| allocations(&mut allocate));
    let (_, of_products, places) = runs.min_by_key(|(_, _, places)| places.len()).unwrap();
    assert_eq!((of_products, places.len()), (0, 2), "{places:#?}");
}
