//! Device buffers of `f32` or `u32`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};

/// Allocations freed so far on all devices; when it changes, caches drop stale entries.
static FREED: AtomicU64 = AtomicU64::new(0);

pub(super) fn allocations_freed() -> u64 {
    FREED.load(Ordering::Relaxed)
}

/// The memory that clones, slices and casts of a buffer share.
pub(super) struct Allocation {
    raw: wgpu::Buffer,
    /// None for a caller's own buffer.
    device: Option<DeviceId>,
}

/// Identifies a device. wgpu's own numbers are unique only within one wgpu instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceId {
    /// A running number for each device opened by this crate.
    Opened(u64),
    /// wgpu's number of a caller's device.
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

/// A storage buffer of `len` elements of `T` (`f32` or `u32`). Clones share the allocation, so an
/// operation's output must not be a clone of another argument.
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

/// An allocation's address and a range in it. A cache with this key must hold the
/// [allocation](Buffer::allocation), so that no other one gets the address.
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
    /// Usages that every buffer needs.
    pub const USAGES: wgpu::BufferUsages =
        wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

    pub(super) fn guarded(raw: wgpu::Buffer, device: Option<DeviceId>, len: usize, head: u64, tail: u64) -> Self {
        Self { allocation: Arc::new(Allocation { raw, device }), head, tail, len, element: PhantomData }
    }

    pub(super) fn is_of(&self, device: DeviceId) -> bool {
        self.allocation.device.is_none_or(|own| own == device)
    }

    /// Wraps a caller's buffer of `len` four-byte elements. It must belong to the device that the
    /// kernels run on, which nothing checks.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than `len` elements, [`Error::InvalidValue`] without
    /// [`Self::USAGES`].
    pub fn from_wgpu(raw: wgpu::Buffer, len: usize) -> Result<Self> {
        if raw.size() / 4 < len as u64 || len == 0 {
            return Err(Error::shape("buffer", format!("at least {} elements of 4 bytes", len.max(1)), raw.size() / 4));
        }
        if !raw.usage().contains(Self::USAGES) {
            return Err(Error::value("buffer usage", format!("{:?}", Self::USAGES), format!("{:?}", raw.usage())));
        }
        Ok(Self::guarded(raw, None, len, 0, 0))
    }

    /// The wgpu buffer. Its first element is at byte 0 unless it has guard regions.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.allocation.raw
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty)] // a buffer holds at least one element
    pub fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.tail > 0
    }

    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = std::num::NonZeroU64::new(4 * self.len as u64 + self.tail);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: self.raw(), offset: self.head, size })
    }

    /// `len` elements from `offset` on, a multiple of 64: 256 bytes, WebGPU's strictest alignment.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Self {
        debug_assert!(offset.is_multiple_of(64) && offset + len <= self.len);
        Self { head: self.head + 4 * offset as u64, tail: 0, len, ..self.clone() }
    }

    /// Reinterprets the memory as another four-byte type, for kernels that only move bits.
    pub(crate) fn cast<U>(&self) -> Buffer<U> {
        Buffer { allocation: Arc::clone(&self.allocation), head: self.head, tail: self.tail, len: self.len, element: PhantomData }
    }

    pub(super) fn key(&self) -> BufferKey {
        BufferKey { allocation: Arc::as_ptr(&self.allocation).addr(), head: self.head, tail: self.tail, len: self.len }
    }

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
