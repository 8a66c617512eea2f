//! Every operation once: its sizes, its inputs, a call on any backend, its FLOPs and bytes. The tests, `verify`, `bench` and the criterion
//! benches share this list.

pub mod advantage;
mod draw;
pub mod gather;
pub mod linear;
pub mod nonfinite;
pub mod normalize;
pub mod optimizer;
pub mod policy;
pub mod random;
pub mod surrogate;

pub use draw::Draw;

use crate::backend::Backend;
use crate::error::Result;

/// A call on buffers that it owns. It can be repeated.
pub type Step<B> = Box<dyn FnMut(&mut B) -> Result<()>>;

/// Something that any backend can run, and what it costs.
pub trait Call: std::fmt::Debug {
    /// Uploads the inputs and returns the call.
    ///
    /// # Errors
    /// Those of the allocations.
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>>;

    /// Arithmetic and traffic of one call.
    fn work(&self) -> Work;
}

/// One operation of the backend traits, at sizes and with options.
pub trait Operation: Call + Sized {
    /// The method of the backend trait.
    const NAME: &'static str;
    /// Its kernel and sizes.
    const DOMAIN: &'static Domain;

    /// At `sizes`, which may contain a zero, with options drawn.
    fn draw(sizes: &[usize], draw: &mut Draw) -> Self;
}

/// The sizes that operations of one kernel are tested at.
#[derive(Debug)]
pub struct Domain {
    /// The kernel: a stem of `shaders/`, `src/kernels/`, `src/reference/` and `tests/`.
    pub kernel: &'static str,
    /// Names of the sizes.
    pub sizes: &'static [&'static str],
    /// Sizes at which kernels go wrong: one, and around workgroups, tiles, vectors and blocks.
    pub edges: &'static [&'static [usize]],
    /// Largest random sizes.
    pub most: &'static [usize],
}

/// Takes each operation of the list.
pub trait Operations {
    /// Takes one. Its kernel and name are `O`'s.
    ///
    /// # Errors
    /// Those of the visitor: no more operations follow.
    fn add<O: Operation>(&mut self) -> Result<()>;
}

/// Takes each bench of the list.
pub trait Benches {
    /// Takes one. `name` is `section/shape`; a `small` one takes no seconds and no gigabytes.
    fn add<C: Call>(&mut self, name: String, small: bool, call: C);
}

/// Shows every operation to `list`, kernel after kernel.
///
/// # Errors
/// The first of `list`.
pub fn operations(list: &mut impl Operations) -> Result<()> {
    linear::operations(list)?;
    advantage::operations(list)?;
    policy::operations(list)?;
    surrogate::operations(list)?;
    normalize::operations(list)?;
    optimizer::operations(list)?;
    nonfinite::operations(list)?;
    gather::operations(list)?;
    random::operations(list)
}

/// Shows every bench of one operation, or of a few that belong together, to `list`.
pub fn benches(list: &mut impl Benches) {
    linear::benches(list);
    advantage::benches(list);
    policy::benches(list);
    surrogate::benches(list);
    normalize::benches(list);
    optimizer::benches(list);
    nonfinite::benches(list);
    gather::benches(list);
    random::benches(list);
}

/// What a call does.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Floating-point operations; a transcendental function counts as one.
    pub flops: f64,
    /// Bytes that have to be read and written at least.
    pub bytes: f64,
    /// Samples or elements, after the name of that rate.
    pub items: Option<(&'static str, f64)>,
}

impl Work {
    /// `flops` operations, `words` numbers of four bytes moved, and a rate of `items`.
    pub fn new(flops: usize, words: usize, items: (&'static str, usize)) -> Self {
        Self { flops: flops as f64, bytes: 4.0 * words as f64, items: Some((items.0, items.1 as f64)) }
    }
}

/// Buffers of a call on one backend: random inputs, and room for outputs. Lengths of zero become one, so that it is the operation that
/// refuses them.
#[derive(Debug)]
pub struct Inputs<'a, B> {
    /// Where the buffers are.
    pub backend: &'a mut B,
    /// Where the numbers come from.
    pub draw: Draw,
}

impl<B: Backend> Inputs<'_, B> {
    /// A buffer holding `data`.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn upload(&mut self, data: &[f32]) -> Result<B::Floats> {
        self.backend.upload_floats(if data.is_empty() { &[0.0] } else { data })
    }

    /// `n` standard normal numbers times `scale`.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn floats(&mut self, n: usize, scale: f32) -> Result<B::Floats> {
        let data = self.draw.long(n, scale);
        self.upload(&data)
    }

    /// `n` integers below `below`.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn words(&mut self, n: usize, below: usize) -> Result<B::Words> {
        let data = self.draw.words(n.max(1), below.max(1));
        self.backend.upload_words(&data)
    }

    /// `n` flags that are 1 with that probability.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn flags(&mut self, n: usize, probability: f64) -> Result<B::Words> {
        let data = self.draw.flags(n.max(1), probability);
        self.backend.upload_words(&data)
    }

    /// As [`flags`](Self::flags), as 0.0 and 1.0.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn float_flags(&mut self, n: usize, probability: f64) -> Result<B::Floats> {
        let data: Vec<f32> = self.draw.flags(n, probability).iter().map(|&flag| flag as f32).collect();
        self.upload(&data)
    }

    /// Room for `n` real numbers.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn output(&mut self, n: usize) -> Result<B::Floats> {
        self.backend.alloc_floats(n.max(1))
    }

    /// Room for `n` words.
    ///
    /// # Errors
    /// Those of the allocation.
    pub fn output_words(&mut self, n: usize) -> Result<B::Words> {
        self.backend.alloc_words(n.max(1))
    }
}
