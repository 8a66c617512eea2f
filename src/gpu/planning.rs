//! What a context keeps that runs nothing and counts the bytes asked of it.

/// Bytes of a buffer that stands for another. Each buffer has one of its own: bind groups and copies tell buffers apart.
const PLACEHOLDER: u64 = 4;
/// Buffers begin at multiples of this, a cache line. Most drivers take from 16 to 256 bytes, which shows where there is little but uniforms;
/// D3D12 takes 64 KiB.
const ALIGNMENT: u64 = 64;

/// A count, and what takes the place of what is not made.
pub(super) struct Planning {
    /// Of all buffers so far. Nothing is subtracted: what an update lets go of, its recorded commands hold until they are submitted.
    pub(super) bytes: u64,
    /// Binds nothing.
    pub(super) bind_group: wgpu::BindGroup,
}

impl Planning {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &[] });
        let bind_group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &[] };
        Self { bytes: 0, bind_group: device.create_bind_group(&bind_group) }
    }

    /// Counts a buffer of `size` bytes; the size to make it with, if it has to be there.
    pub(super) fn count(&mut self, size: u64) -> u64 {
        self.bytes = self.bytes.saturating_add(size.next_multiple_of(ALIGNMENT));
        PLACEHOLDER
    }
}
