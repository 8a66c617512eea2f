//! Messages that a driver prints by itself.

/// Starts the program again with `XDG_RUNTIME_DIR` set, where it is not; returns where it is set, or where that fails.
///
/// Each listing of adapters makes Mesa's Vulkan layer look for a Wayland display. libwayland then prints an error where `XDG_RUNTIME_DIR` is
/// no absolute path, as in most containers, and a newcomer reads that before anything of ours. wgpu has no switch for it, and a process
/// cannot set its own environment without `unsafe`. The new program has the same process id, so whoever started it notices nothing. There is
/// no folder of that name, so nobody finds a display in it.
pub fn start_again_with_runtime_dir() {
    #[cfg(all(unix, not(target_vendor = "apple")))]
    {
        use std::os::unix::process::CommandExt;
        use std::path::Path;
        use std::process::Command;

        const NAME: &str = "XDG_RUNTIME_DIR";
        if std::env::var_os(NAME).is_some_and(|folder| Path::new(&folder).is_absolute()) {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // This returns only where the system refuses; then the driver may print its message.
        let refused = command.args(arguments).env(NAME, "/nonexistent").exec();
        log::info!("{NAME} is not set, and the program cannot start again with it: {refused}");
    }
}
