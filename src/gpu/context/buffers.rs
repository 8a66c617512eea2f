//! Allocation, writes, copies and read-back of buffers.

use super::guards::{GUARD_ELEMENTS, GUARD_WORD, POISON_WORD};
use super::{Context, Timing};
use crate::error::{Error, Result};
use crate::gpu::buffer::Buffer;
use crate::gpu::command::Command;
use crate::gpu::wait;

impl Context {
    /// A new buffer of `len` zeros (NaN in guarded mode).
    ///
    /// # Errors
    /// [`Error::Shape`] for zero elements; a limit, too little memory, or a lost device.
    pub fn alloc<T>(&mut self, len: usize) -> Result<Buffer<T>> {
        self.require_alive()?;
        if len == 0 {
            return Err(Error::shape("len", "at least 1 element", len));
        }
        let (guard, size) = self.size_of_buffer(len)?;
        let raw = self.create(size, Buffer::<T>::USAGES | wgpu::BufferUsages::UNIFORM, "storage")?;
        if self.guards {
            let mut words = vec![GUARD_WORD; len + 2 * GUARD_ELEMENTS];
            words[GUARD_ELEMENTS..GUARD_ELEMENTS + len].fill(POISON_WORD);
            self.write_bytes(&raw, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(Buffer::guarded(raw, Some(self.device_id), len, guard, guard))
    }

    /// Bytes of a guard region, and of a buffer of `len` elements with both.
    fn size_of_buffer(&self, len: usize) -> Result<(u64, u64)> {
        let guard = if self.guards { 4 * GUARD_ELEMENTS as u64 } else { 0 };
        let size = (len as u64).saturating_mul(4).saturating_add(2 * guard);
        for (limit, available) in [
            ("max_storage_buffer_binding_size", self.limits.max_storage_buffer_binding_size),
            ("max_buffer_size", self.limits.max_buffer_size),
        ] {
            if size > available {
                return Err(Error::LimitExceeded { limit, needed: size, available });
            }
        }
        Ok((guard, size))
    }

    pub(crate) fn allows(&self, len: usize) -> bool {
        self.size_of_buffer(len).is_ok()
    }

    /// A scratch buffer of at least `len` elements, shared under `name`, because an allocation
    /// costs more than an operation. A replaced buffer lives on in recorded commands.
    pub(crate) fn scratch<T>(&mut self, name: &'static str, len: usize) -> Result<Buffer<T>> {
        if let Some(known) = self.scratch.get(name).filter(|known| known.len() >= len) {
            return Ok(known.cast());
        }
        let made: Buffer<u32> = self.alloc(len)?;
        self.scratch.insert(name, made.clone());
        Ok(made.cast())
    }

    /// Drops cached bind groups, scratch buffers and the read-back buffer.
    pub fn release(&mut self) {
        self.staging = None;
        self.bind_groups.clear();
        self.scratch.clear();
    }

    /// Creates every buffer of this context.
    pub(super) fn create(&mut self, size: u64, usage: wgpu::BufferUsages, what: &str) -> Result<wgpu::Buffer> {
        self.bind_groups.drop_stale();
        let size = self.dry_run.as_mut().map_or(size, |dry_run| dry_run.count(size));
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let create = || self.device.create_buffer(&descriptor);
        match wait::with_error_scope(&self.device, wgpu::ErrorFilter::OutOfMemory, create) {
            (raw, None) => Ok(raw),
            (_, Some(_)) => Err(Error::OutOfMemory { what: what.to_owned(), needed: size }),
        }
    }

    /// Writes `data` from element `offset` on, in order with the recorded commands.
    ///
    /// # Errors
    /// [`Error::Shape`] beyond the end, [`Error::DeviceLost`].
    pub fn write<T: bytemuck::Pod>(&mut self, target: &Buffer<T>, offset: usize, data: &[T]) -> Result<()> {
        self.require_alive()?;
        self.require_own("target", target)?;
        check_range("write", target.len(), offset, data.len())?;
        self.write_bytes(target.raw(), target.head + 4 * offset as u64, bytemuck::cast_slice(data))
    }

    fn write_bytes(&mut self, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        // A queue write runs before all recorded commands, which may need the old contents.
        if self.commands.is_empty() && !self.is_encoded_elsewhere {
            self.write_now(target, offset, bytes);
            return Ok(());
        }
        let size = bytes.len() as u64;
        let staging = self.create(size, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST, "upload")?;
        self.write_now(&staging, 0, bytes);
        let target = target.clone();
        self.commands.push(Command::Copy { source: staging, source_offset: 0, target, target_offset: offset, size });
        Ok(())
    }

    pub(super) fn write_now(&self, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        if self.dry_run.is_none() {
            self.queue.write_buffer(target, offset, bytes);
        }
    }

    /// Records a copy of `len` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] for a range outside its buffer, and for one and the same buffer.
    pub fn copy<T>(
        &mut self,
        source: &Buffer<T>,
        source_offset: usize,
        target: &Buffer<T>,
        target_offset: usize,
        len: usize,
    ) -> Result<()> {
        self.require_own("source", source)?;
        self.require_own("target", target)?;
        check_range("source", source.len(), source_offset, len)?;
        check_range("target", target.len(), target_offset, len)?;
        if source.raw() == target.raw() {
            return Err(Error::shape("target", "a buffer other than the source", "the source"));
        }
        self.commands.push(Command::Copy {
            source: source.raw().clone(),
            source_offset: source.head + 4 * source_offset as u64,
            target: target.raw().clone(),
            target_offset: target.head + 4 * target_offset as u64,
            size: 4 * len as u64,
        });
        Ok(())
    }

    /// Submits all commands, waits, and returns `len` elements from `offset` on.
    ///
    /// # Errors
    /// [`Error::Shape`] for a range outside the buffer, [`Error::Device`], [`Error::DeviceLost`].
    /// In guarded mode, [`Error::Device`] after a kernel wrote outside the buffer.
    pub fn read<T: bytemuck::Pod>(&mut self, source: &Buffer<T>, offset: usize, len: usize) -> Result<Vec<T>> {
        self.require_own("source", source)?;
        check_range("read", source.len(), offset, len)?;
        self.check_guards(source)?;
        self.read_bytes(&[(source.raw(), source.head + 4 * offset as u64, 4 * len as u64)], bytemuck::pod_collect_to_vec)
    }

    /// Reads both buffers by one submission. Errors: those of [`read`](Self::read).
    pub(crate) fn read_both(&mut self, words: &Buffer<u32>, floats: &Buffer<f32>) -> Result<(Vec<u32>, Vec<f32>)> {
        self.require_own("words", words)?;
        self.require_own("floats", floats)?;
        self.check_guards(words)?;
        self.check_guards(floats)?;
        let sources = [(words.raw(), words.head, 4 * words.len() as u64), (floats.raw(), floats.head, 4 * floats.len() as u64)];
        let both: Vec<u32> = self.read_bytes(&sources, bytemuck::pod_collect_to_vec)?;
        let (words, floats) = both.split_at(words.len());
        Ok((words.to_vec(), bytemuck::pod_collect_to_vec(floats)))
    }

    /// Reads ranges (buffer, offset, size in bytes), concatenated.
    pub(super) fn read_bytes<R>(&mut self, sources: &[(&wgpu::Buffer, u64, u64)], convert: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let size = sources.iter().map(|(_, _, size)| size).sum();
        let staging = match self.staging.take().filter(|s| s.size() >= size) {
            Some(staging) => staging,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                self.create(size.next_power_of_two().min(self.limits.max_buffer_size), usage, "read-back")?
            }
        };
        let mut target_offset = 0;
        for &(source, source_offset, size) in sources {
            let (source, target) = (source.clone(), staging.clone());
            self.commands.push(Command::Copy { source, source_offset, target, target_offset, size });
            target_offset += size;
        }
        self.flush()?;
        if self.dry_run.is_some() {
            return Ok(convert(&vec![0; size as usize]));
        }
        let result = wait::read(&self.device, self.is_software, &staging, size, convert);
        self.timing.iter_mut().for_each(Timing::resume_host);
        self.raise_reported()?;
        self.staging = result.is_ok().then_some(staging);
        result
    }

    pub(super) fn require_own<T>(&self, argument: &str, buffer: &Buffer<T>) -> Result<()> {
        if buffer.is_of(self.device_id) {
            Ok(())
        } else {
            Err(Error::value(argument, "a buffer of this device", "a buffer of another device"))
        }
    }
}

fn check_range(argument: &str, available: usize, offset: usize, len: usize) -> Result<()> {
    if len > 0 && offset.checked_add(len).is_some_and(|end| end <= available) {
        return Ok(());
    }
    Err(Error::shape(argument, format!("a non-empty range within {available} elements"), format!("{len} from {offset}")))
}
