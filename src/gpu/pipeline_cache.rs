//! The file of the driver's compiled pipelines, which the next process reads.

use std::hash::{DefaultHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::autotune::{file_name, write_atomically};
use super::wait::with_error_scope;

/// Bytes of the checksum that stands before the driver's data.
const CHECKSUM: usize = size_of::<u64>();
/// Drivers forget nothing. A file of more bytes than this is started again.
const LARGEST: usize = 64 << 20;

/// A pipeline cache, written when it is dropped with other contents than it was read with.
pub(super) struct PipelineCacheFile {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Of the data it was made with.
    checksum: Option<u64>,
}

impl PipelineCacheFile {
    /// None where the device was opened without the feature, which only Vulkan has.
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
            log::warn!("pipelines are not cached: {}: {error}", self.path.display());
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
            log::warn!("{} is damaged: ignored and written anew", path.display());
            None
        }
    }
}

/// Finds damage, not malice. The standard library may change it with a version: then files of the version before are ignored once.
fn checksum_of(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

/// None, and a line in the log, where wgpu refuses the data: of another driver, say.
#[allow(unsafe_code)]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("ppo-kernels"), data, fallback: false };
    // SAFETY: data has to come from `get_data`. It is what `Drop` wrote, in a file named after adapter, driver and version, and its checksum
    // fits; wgpu and the driver then compare their own headers. Somebody could make a file that passes all of this, but only who may
    // write to the user's cache folder, and so could replace the user's programs as well.
    let create = || unsafe { device.create_pipeline_cache(&descriptor) };
    let (cache, refused) = with_error_scope(device, wgpu::ErrorFilter::Validation, create);
    if let Some(error) = &refused {
        log::warn!("cached pipelines are ignored: {error}");
    }
    refused.is_none().then_some(cache)
}
