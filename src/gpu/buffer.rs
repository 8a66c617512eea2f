//! Device buffers of `f32` or `u32`.

use std::marker::PhantomData;

use crate::error::{Error, Result};

/// A storage buffer of `len` elements of `T` (`f32` or `u32`). Cloning shares the memory.
pub struct Buffer<T> {
    pub(crate) raw: wgpu::Buffer,
    /// Bytes before the first element: zero, or a guard region.
    pub(crate) head: u64,
    /// Bytes after the last element that shaders can reach: zero, or a guard region.
    pub(crate) tail: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self { raw: self.raw.clone(), head: self.head, tail: self.tail, len: self.len, element: PhantomData }
    }
}

/// The same elements of the same memory.
impl<T> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        let Self { raw, head, tail, len, element: PhantomData } = self;
        (raw, head, tail, len) == (&other.raw, &other.head, &other.tail, &other.len)
    }
}

impl<T> Eq for Buffer<T> {}

impl<T> std::hash::Hash for Buffer<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self { raw, head, tail, len, element: PhantomData } = self;
        (raw, head, tail, len).hash(state);
    }
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

    pub(crate) fn guarded(raw: wgpu::Buffer, len: usize, head: u64, tail: u64) -> Self {
        Self { raw, head, tail, len, element: PhantomData }
    }

    /// A caller's own buffer of `len` four-byte elements, made on the device that the kernels run on.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is smaller than `len` elements, [`Error::InvalidValue`] when it lacks one of [`Self::USAGES`].
    pub fn from_wgpu(raw: wgpu::Buffer, len: usize) -> Result<Self> {
        if raw.size() < 4 * len as u64 || len == 0 {
            return Err(Error::shape("buffer", format!("at least {} bytes", 4 * len.max(1)), raw.size()));
        }
        if !raw.usage().contains(Self::USAGES) {
            return Err(Error::value("buffer usage", format!("{:?}", Self::USAGES), format!("{:?}", raw.usage())));
        }
        Ok(Self::guarded(raw, len, 0, 0))
    }

    /// The wgpu buffer underneath. Its first element is at byte zero unless guard regions were asked for.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty)] // a buffer holds at least one element
    pub fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = std::num::NonZeroU64::new(4 * self.len as u64 + self.tail);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &self.raw, offset: self.head, size })
    }

    /// `len` elements from `offset` on, which is a multiple of 64: 256 bytes, the strictest offset alignment there is.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Self {
        debug_assert!(offset.is_multiple_of(64) && offset + len <= self.len);
        Self { raw: self.raw.clone(), head: self.head + 4 * offset as u64, tail: 0, len, element: PhantomData }
    }

    /// The same memory seen as another four-byte type, for kernels that only move bits.
    pub(crate) fn cast<U>(&self) -> Buffer<U> {
        Buffer { raw: self.raw.clone(), head: self.head, tail: self.tail, len: self.len, element: PhantomData }
    }
}

/// A buffer at a binding of group 0, as [`Context::dispatch`](super::Context::dispatch) takes it.
pub(crate) fn bind<T>(binding: u32, buffer: &Buffer<T>) -> (u32, Buffer<u32>) {
    (binding, buffer.cast())
}
