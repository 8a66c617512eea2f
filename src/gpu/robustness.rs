//! Vulkan devices whose driver does not check buffer accesses.
//!
//! wgpu opens every device with `robustBufferAccess2` where it exists. The driver then compares
//! each address with the buffer's size, even in shaders compiled without bounds checks.

use ash::vk;
use wgpu::hal;

/// Opens `adapter` without `robustBufferAccess`, or returns the reason why it cannot.
///
/// # Safety
/// wgpu adds no checks to shaders of this device. Each shader has to keep its indices in bounds.
#[allow(unsafe_code)]
pub(super) unsafe fn open_unchecked(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue), String> {
    // SAFETY: this function destroys no part of it.
    let vulkan = unsafe { adapter.as_hal::<hal::api::Vulkan>() }.ok_or("it is not opened through Vulkan")?;
    let extensions = vulkan.required_device_extensions(descriptor.required_features);
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    // wgpu always takes this queue.
    let (family, queue) = (0, 0);
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let mut features = vulkan.physical_device_features(&extensions, descriptor.required_features);
    let mut info = features.add_to_device_create(info);
    let mut core = vk::PhysicalDeviceFeatures::default();
    // SAFETY: wgpu built this chain in `features`, borrowed by nothing else; `core` outlives
    // `info`.
    unsafe { clear_robust_buffer_access(&mut info, &mut core) };
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: wgpu chose all of these for this instance; nothing depends on the two removed
    // features.
    let device = unsafe { instance.create_device(vulkan.raw_physical_device(), &info, None) }.map_err(|e| e.to_string())?;
    let (limits, hints) = (&descriptor.required_limits, &descriptor.memory_hints);
    // SAFETY: this adapter made the device with these arguments; wgpu owns it from here on.
    let opened =
        unsafe { vulkan.device_from_raw(device, None, &extensions, descriptor.required_features, limits, hints, family, queue) };
    let opened = opened.map_err(|e| e.to_string())?;
    // SAFETY: the device has everything that the descriptor requests.
    unsafe { adapter.create_device_from_hal(opened, descriptor) }.map_err(|e| e.to_string())
}

/// Clears both features in the chain of `info`; `core` replaces the features that it points to.
///
/// # Safety
/// All pointers of `info` are valid, and its chain may be written.
#[allow(unsafe_code)]
unsafe fn clear_robust_buffer_access<'a>(info: &mut vk::DeviceCreateInfo<'a>, core: &'a mut vk::PhysicalDeviceFeatures) {
    // SAFETY: null or valid.
    if let Some(&enabled) = unsafe { info.p_enabled_features.as_ref() } {
        *core = enabled.robust_buffer_access(false);
        info.p_enabled_features = core;
    }
    let mut next = info.p_next.cast::<vk::BaseOutStructure<'_>>().cast_mut();
    // SAFETY: every structure of a chain begins with its type and the next one's address.
    while let Some(base) = unsafe { next.as_mut() } {
        if base.s_type == vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT {
            // SAFETY: `s_type` identifies the structure.
            unsafe { (*next.cast::<vk::PhysicalDeviceRobustness2FeaturesEXT<'_>>()).robust_buffer_access2 = vk::FALSE };
        }
        next = base.p_next;
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    #[test]
    fn checks_of_buffers_are_turned_off_and_nothing_else() {
        let enabled = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true).shader_int64(true);
        let mut images = vk::PhysicalDeviceImageRobustnessFeatures::default().robust_image_access(true);
        let mut robustness =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true).robust_image_access2(true);
        let mut halves = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_float16(true);
        let mut core = vk::PhysicalDeviceFeatures::default();
        let mut info = vk::DeviceCreateInfo::default().enabled_features(&enabled);
        info = info.push_next(&mut images).push_next(&mut robustness).push_next(&mut halves);
        // SAFETY: all structures live until the end of this function.
        unsafe { clear_robust_buffer_access(&mut info, &mut core) };
        assert!(std::ptr::eq(info.p_enabled_features, &core));
        assert_eq!((core.robust_buffer_access, core.shader_int64), (vk::FALSE, vk::TRUE));
        assert_eq!((robustness.robust_buffer_access2, robustness.robust_image_access2), (vk::FALSE, vk::TRUE));
        assert_eq!((images.robust_image_access, halves.shader_float16), (vk::TRUE, vk::TRUE));
    }

    #[test]
    fn a_device_without_features_stays_one() {
        let mut core = vk::PhysicalDeviceFeatures::default();
        let mut info = vk::DeviceCreateInfo::default();
        // SAFETY: both pointers are null.
        unsafe { clear_robust_buffer_access(&mut info, &mut core) };
        assert!(info.p_enabled_features.is_null() && info.p_next.is_null());
    }
}
