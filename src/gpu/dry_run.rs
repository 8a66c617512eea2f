//! State of a dry run, which executes nothing and counts the bytes of all buffers.

/// Bytes of a placeholder. Each buffer has its own, because bind groups tell buffers apart.
const PLACEHOLDER: u64 = 4;
/// Buffers start at multiples of a cache line. Most drivers align to 16 to 256 bytes, D3D12 to 64
/// KiB; the difference matters only for uniforms.
const ALIGNMENT: u64 = 64;

pub(super) struct DryRun {
    /// Bytes of all buffers so far, also of dropped ones, which recorded commands hold.
    pub(super) bytes: u64,
    pub(super) bind_group: wgpu::BindGroup,
}

impl DryRun {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &[] });
        let bind_group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &[] };
        Self { bytes: 0, bind_group: device.create_bind_group(&bind_group) }
    }

    /// Counts `size` bytes and returns the placeholder's size.
    pub(super) fn count(&mut self, size: u64) -> u64 {
        self.bytes = self.bytes.saturating_add(size.next_multiple_of(ALIGNMENT));
        PLACEHOLDER
    }
}
