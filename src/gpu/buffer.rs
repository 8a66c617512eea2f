//! Device buffers of `f32` or `u32`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};

/// Allocations freed so far, of all devices. A cache of objects that live as long as an allocation looks for stale ones when this changes.
static FREED: AtomicU64 = AtomicU64::new(0);

/// How often, so far, the last [`Buffer`] of an allocation was dropped.
pub(super) fn allocations_freed() -> u64 {
    FREED.load(Ordering::Relaxed)
}

/// The memory that clones, slices and casts of a buffer share.
pub(super) struct Allocation {
    raw: wgpu::Buffer,
    /// Not known of a caller's own buffer.
    device: Option<DeviceId>,
}

/// Tells devices apart, which wgpu's own numbers do not across instances: there, a buffer of another device is taken for one of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceId {
    /// Opened here, counted.
    Opened(u64),
    /// A caller's, by wgpu's number.
    Callers(u64),
}

impl DeviceId {
    pub(super) fn of_opened() -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        Self::Opened(OPENED.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn of_callers(device: &wgpu::Device) -> Self {
        let mut hasher = DefaultHasher::new();
        device.hash(&mut hasher);
        Self::Callers(hasher.finish())
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        FREED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A storage buffer of `len` elements of `T` (`f32` or `u32`). Cloning shares the allocation: what an operation writes must be no clone of anything else that
/// it takes.
pub struct Buffer<T> {
    allocation: Arc<Allocation>,
    /// Bytes before the first element: zero, or a guard region.
    pub(super) head: u64,
    /// Bytes after the last element that shaders can reach: zero, or a guard region.
    tail: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T> crate::operands::Length for Buffer<T> {
    fn len(&self) -> usize {
        self.len
    }
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        self.cast()
    }
}

/// An allocation, by its address, and a range in it: the key of a cache whose values hold the [allocation](Buffer::allocation), so that no
/// other one gets the address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BufferKey {
    allocation: usize,
    head: u64,
    tail: u64,
    len: usize,
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).field("head", &self.head).field("tail", &self.tail).finish()
    }
}

impl<T> Buffer<T> {
    /// What a buffer must be usable for.
    pub const USAGES: wgpu::BufferUsages =
        wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

    pub(super) fn guarded(raw: wgpu::Buffer, device: Option<DeviceId>, len: usize, head: u64, tail: u64) -> Self {
        Self { allocation: Arc::new(Allocation { raw, device }), head, tail, len, element: PhantomData }
    }

    /// Whether it may be used on this device.
    pub(super) fn is_of(&self, device: DeviceId) -> bool {
        self.allocation.device.is_none_or(|own| own == device)
    }

    /// A caller's own buffer of `len` four-byte elements, made on the device that the kernels run on, which nobody checks.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is smaller than `len` elements, [`Error::InvalidValue`] when it lacks one of [`Self::USAGES`].
    pub fn from_wgpu(raw: wgpu::Buffer, len: usize) -> Result<Self> {
        if raw.size() / 4 < len as u64 || len == 0 {
            return Err(Error::shape("buffer", format!("at least {} elements of 4 bytes", len.max(1)), raw.size() / 4));
        }
        if !raw.usage().contains(Self::USAGES) {
            return Err(Error::value("buffer usage", format!("{:?}", Self::USAGES), format!("{:?}", raw.usage())));
        }
        Ok(Self::guarded(raw, None, len, 0, 0))
    }

    /// The wgpu buffer underneath. Its first element is at byte zero unless guard regions were asked for.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.allocation.raw
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty)] // a buffer holds at least one element
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether guard regions surround it.
    pub(super) fn is_guarded(&self) -> bool {
        self.tail > 0
    }

    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = std::num::NonZeroU64::new(4 * self.len as u64 + self.tail);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: self.raw(), offset: self.head, size })
    }

    /// `len` elements from `offset` on, which is a multiple of 64: 256 bytes, the strictest offset alignment there is.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Self {
        debug_assert!(offset.is_multiple_of(64) && offset + len <= self.len);
        Self { head: self.head + 4 * offset as u64, tail: 0, len, ..self.clone() }
    }

    /// The same memory seen as another four-byte type, for kernels that only move bits.
    pub(crate) fn cast<U>(&self) -> Buffer<U> {
        Buffer { allocation: Arc::clone(&self.allocation), head: self.head, tail: self.tail, len: self.len, element: PhantomData }
    }

    pub(super) fn key(&self) -> BufferKey {
        BufferKey { allocation: Arc::as_ptr(&self.allocation).addr(), head: self.head, tail: self.tail, len: self.len }
    }

    /// Does not keep it alive.
    pub(super) fn allocation(&self) -> Weak<Allocation> {
        Arc::downgrade(&self.allocation)
    }
}

/// A buffer at the shader's variable `name`, for [`Context::dispatch`](super::Context::dispatch).
pub(crate) fn bind<T>(name: &'static str, buffer: &Buffer<T>) -> Bound {
    (name, buffer.cast())
}

/// A variable of group 0 and its buffer.
pub(crate) type Bound = (&'static str, Buffer<u32>);
