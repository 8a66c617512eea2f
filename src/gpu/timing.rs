//! Times of submissions: device time by timestamp queries, host time up to each submission.

use super::wait::{self, Stopwatch};
use crate::error::Result;

/// Most submissions between two readings. After more there is no sum.
const MOST_SUBMISSIONS: usize = 256;
/// Bytes from one submission's timestamps to the next: the smallest alignment.
const STRIDE: u64 = wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;
/// One at the start of a submission's first pass, one at the end of its last.
const TIMESTAMPS: u32 = 2;

pub(super) struct Timing {
    /// None without timestamp queries.
    device: Option<DeviceClock>,
    host: HostClock,
}

impl Timing {
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let has_timestamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        Self { device: has_timestamps.then(|| DeviceClock::new(device, queue)), host: HostClock::new() }
    }

    pub(super) fn queries(&self) -> Option<&wgpu::QuerySet> {
        self.device.as_ref().filter(|clock| clock.submissions < MOST_SUBMISSIONS).map(|clock| &clock.queries)
    }

    /// Resolves the timestamps of a submission with passes, after its last pass.
    pub(super) fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) {
        if let Some(clock) = &mut self.device {
            clock.resolve(encoder);
        }
    }

    /// Call after encoding: the driver's and the device's time follows.
    pub(super) fn stop_host(&mut self) {
        self.host.stop();
    }

    /// Call when the host works again.
    pub(super) fn resume_host(&mut self) {
        self.host.since = Stopwatch::start();
    }

    pub(super) fn take_gpu_seconds(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        is_software: bool,
    ) -> Result<Option<f64>> {
        self.device.as_mut().map_or(Ok(None), |clock| clock.take_seconds(device, queue, is_software))
    }

    pub(super) fn take_encode_seconds(&mut self) -> Option<f64> {
        let host = std::mem::replace(&mut self.host, HostClock::new());
        host.has_submitted.then_some(host.seconds)
    }
}

/// A pass's position in its submission.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassPosition {
    pub(super) first: bool,
    pub(super) last: bool,
}

/// A pass writes timestamps only if it is the first or the last.
pub(super) fn timestamp_writes(queries: &wgpu::QuerySet, position: PassPosition) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
    (position.first || position.last).then_some(wgpu::ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: position.first.then_some(0),
        end_of_pass_write_index: position.last.then_some(1),
    })
}

struct DeviceClock {
    queries: wgpu::QuerySet,
    /// Timestamps of each submission; zeros for one that never ran.
    resolved: wgpu::Buffer,
    read_back: wgpu::Buffer,
    seconds_a_tick: f64,
    /// Submissions with passes since the last reading.
    submissions: usize,
}

impl DeviceClock {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let buffer = |label, usage| {
            let size = STRIDE * MOST_SUBMISSIONS as u64;
            device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let queries = wgpu::QuerySetDescriptor { label: Some("timestamps"), ty: wgpu::QueryType::Timestamp, count: TIMESTAMPS };
        Self {
            queries: device.create_query_set(&queries),
            resolved: buffer(
                "timestamps",
                wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            ),
            read_back: buffer("timestamps read back", wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            seconds_a_tick: 1e-9 * f64::from(queue.get_timestamp_period()),
            submissions: 0,
        }
    }

    /// Resolves within the submission: a later one could wait for ever for a refused one.
    fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) {
        if self.submissions < MOST_SUBMISSIONS {
            encoder.resolve_query_set(&self.queries, 0..TIMESTAMPS, &self.resolved, STRIDE * self.submissions as u64);
        }
        self.submissions += 1;
    }

    fn take_seconds(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, is_software: bool) -> Result<Option<f64>> {
        let count = std::mem::take(&mut self.submissions);
        if count == 0 {
            return Ok(None);
        }
        let size = STRIDE * count.min(MOST_SUBMISSIONS) as u64;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.read_back, 0, size);
        encoder.clear_buffer(&self.resolved, 0, Some(size));
        queue.submit([encoder.finish()]);
        let words: Vec<u64> = wait::read(device, is_software, &self.read_back, size, bytemuck::pod_collect_to_vec)?;
        let ticks =
            words.chunks_exact(STRIDE as usize / 8).map(|stamps| ticks_between(stamps[0], stamps[1])).sum::<Option<u64>>();
        Ok(ticks.filter(|_| count <= MOST_SUBMISSIONS).map(|ticks| self.seconds_a_tick * ticks as f64))
    }
}

/// None for invalid stamps: drivers without a clock leave zeros, and a clock may wrap or restart.
fn ticks_between(begin: u64, end: u64) -> Option<u64> {
    (begin > 0 && end > begin).then(|| end - begin)
}

/// Host time, without the time from a submission to the end of its wait.
struct HostClock {
    since: Stopwatch,
    seconds: f64,
    has_submitted: bool,
}

impl HostClock {
    fn new() -> Self {
        Self { since: Stopwatch::start(), seconds: 0.0, has_submitted: false }
    }

    fn stop(&mut self) {
        self.seconds += self.since.seconds();
        self.has_submitted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::ticks_between;

    #[test]
    fn stamps_that_cannot_be_give_nothing() {
        assert_eq!(ticks_between(5, 12), Some(7));
        for (begin, end) in [(0, 0), (0, 12), (12, 0), (12, 5), (12, 12)] {
            assert_eq!(ticks_between(begin, end), None, "{begin} {end}");
        }
        assert_eq!([Some(7), None].into_iter().sum::<Option<u64>>(), None, "a sum that lacks one is none");
    }
}
