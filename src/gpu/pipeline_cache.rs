//! The file of the driver's compiled pipelines.

use std::hash::{DefaultHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::autotune::{file_name, write_atomically};
use super::wait::with_error_scope;

/// Bytes of the checksum before the driver's data.
const CHECKSUM: usize = size_of::<u64>();
/// Drivers never shrink their caches. A larger file is discarded.
const LARGEST: usize = 64 << 20;

/// A pipeline cache. Dropping it writes the file if the contents changed.
pub(super) struct PipelineCacheFile {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Checksum of the data from the file.
    checksum: Option<u64>,
}

impl PipelineCacheFile {
    /// None without the device feature, which only Vulkan has.
    pub(super) fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(file_name(&device.adapter_info()) + ".pipelines");
        let known = read(&path).and_then(|data| Some((create(device, Some(&data))?, Some(checksum_of(&data)))));
        let (cache, checksum) = match known {
            Some(known) => known,
            None => (create(device, None)?, None),
        };
        Some(Self { cache, path, checksum })
    }

    pub(super) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }
}

impl Drop for PipelineCacheFile {
    fn drop(&mut self) {
        let Some(data) = self.cache.get_data() else { return };
        let checksum = checksum_of(&data);
        if self.checksum == Some(checksum) {
            return;
        }
        let contents = [checksum.to_le_bytes().as_slice(), &data].concat();
        if let Err(error) = write_atomically(&self.path, &contents) {
            log::warn!("cannot write {} ({error}); pipelines are not cached", self.path.display());
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let contents = std::fs::read(path)
        .inspect_err(|error| {
            if error.kind() != ErrorKind::NotFound {
                log::debug!("{}: {error}", path.display());
            }
        })
        .ok()?;
    match contents.split_first_chunk::<CHECKSUM>() {
        Some((sum, data)) if u64::from_le_bytes(*sum) == checksum_of(data) => (data.len() <= LARGEST).then(|| data.to_vec()),
        _ => {
            log::warn!("{} is damaged; it is ignored and overwritten", path.display());
            None
        }
    }
}

/// Detects damage, not malice. A new standard library may change the hash and void old files.
fn checksum_of(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

/// None, with a warning, where wgpu refuses the data, for instance another driver's.
#[allow(unsafe_code)]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("ppo-kernels"), data, fallback: false };
    // SAFETY: data has to come from `get_data`. `Drop` wrote it to a file named after adapter,
    // driver and version, and its checksum matches. wgpu and the driver compare their own headers
    // too. Who can forge the file can also replace the user's programs.
    let create = || unsafe { device.create_pipeline_cache(&descriptor) };
    let (cache, refused) = with_error_scope(device, wgpu::ErrorFilter::Validation, create);
    if let Some(error) = &refused {
        log::warn!("the driver refuses the cached pipelines ({error}); they are ignored");
    }
    refused.is_none().then_some(cache)
}
