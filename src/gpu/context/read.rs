//! Waiting for the device, and reading back.

use std::time::{Duration, Instant};

use super::{Context, check_range};
use crate::error::{Error, Result};
use crate::gpu::buffer::Buffer;
use crate::gpu::command::Command;
use crate::gpu::poll::poll;
use crate::gpu::timing::Timing;

/// How long to ask the device whether it is done, giving way to whoever wants the core, before sleeping until it is: whoever sleeps takes some
/// ten microseconds to wake up, as long as a small dispatch takes. Hardware works meanwhile; a software adapter computes on these cores, and takes
/// longer for everything.
const AWAKE: Duration = Duration::from_millis(1);
const AWAKE_ON_SOFTWARE: Duration = Duration::from_millis(20);

impl Context {
    /// Waits for everything submitted.
    pub(in crate::gpu) fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        let awake = if self.is_software { AWAKE_ON_SOFTWARE } else { AWAKE };
        while begin.elapsed() < awake {
            if poll(&self.device, wgpu::PollType::Poll)?.is_queue_empty() {
                return Ok(());
            }
            std::thread::yield_now();
        }
        poll(&self.device, wgpu::PollType::wait_indefinitely()).map(drop)
    }

    /// Submits everything recorded, waits, and returns `len` elements from `offset` on.
    ///
    /// # Errors
    /// [`Error::Shape`] for a range outside the buffer, [`Error::Device`] and [`Error::DeviceLost`] from the device.
    pub fn read<T: bytemuck::Pod>(&mut self, source: &Buffer<T>, offset: usize, len: usize) -> Result<Vec<T>> {
        self.require_own("source", source)?;
        check_range("read", source.len(), offset, len)?;
        self.read_bytes(&[(source.raw(), source.head + 4 * offset as u64, 4 * len as u64)], bytemuck::pod_collect_to_vec)
    }

    /// All of both, by one submission. Errors are those of [`read`](Self::read).
    pub(crate) fn read_both(&mut self, words: &Buffer<u32>, floats: &Buffer<f32>) -> Result<(Vec<u32>, Vec<f32>)> {
        self.require_own("words", words)?;
        self.require_own("floats", floats)?;
        let sources = [(words.raw(), words.head, 4 * words.len() as u64), (floats.raw(), floats.head, 4 * floats.len() as u64)];
        let both: Vec<u32> = self.read_bytes(&sources, bytemuck::pod_collect_to_vec)?;
        let (words, floats) = both.split_at(words.len());
        Ok((words.to_vec(), bytemuck::pod_collect_to_vec(floats)))
    }

    /// Ranges of buffers, offset and size each, one behind the other.
    pub(super) fn read_bytes<R>(&mut self, sources: &[(&wgpu::Buffer, u64, u64)], convert: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let size = sources.iter().map(|(_, _, size)| size).sum();
        let staging = match self.staging.take().filter(|s| s.size() >= size) {
            Some(kept) => kept,
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
        if self.planning.is_some() {
            return Ok(convert(&vec![0; size as usize]));
        }
        staging.map_async(wgpu::MapMode::Read, ..size, |_| {});
        self.wait()?;
        self.timing.iter_mut().for_each(Timing::resume_host);
        self.raise_reported()?;
        let view = staging.get_mapped_range(..size).map_err(|e| Error::Device(e.to_string()))?;
        let result = convert(&view);
        drop(view);
        staging.unmap();
        self.staging = Some(staging);
        Ok(result)
    }
}
