//! The dry run of a context: it runs nothing and counts the bytes that are allocated.

/// Bytes of a buffer that stands for another. Each buffer has one of its own: bind groups and copies tell buffers apart.
const PLACEHOLDER: u64 = 4;
/// Buffers begin at multiples of this, a cache line. Most drivers take from 16 to 256 bytes, which shows where there is little but uniforms;
/// D3D12 takes 64 KiB.
const ALIGNMENT: u64 = 64;

/// A count of bytes, and a placeholder for bind groups.
pub(super) struct DryRun {
    /// All buffers so far. Nothing is subtracted: a buffer that an update drops lives on in its recorded commands until they are submitted.
    pub(super) bytes: u64,
    /// Binds nothing.
    pub(super) bind_group: wgpu::BindGroup,
}

impl DryRun {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &[] });
        let bind_group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &[] };
        Self { bytes: 0, bind_group: device.create_bind_group(&bind_group) }
    }

    /// Counts a buffer of `size` bytes; the size of its placeholder.
    pub(super) fn count(&mut self, size: u64) -> u64 {
        self.bytes = self.bytes.saturating_add(size.next_multiple_of(ALIGNMENT));
        PLACEHOLDER
    }
}
