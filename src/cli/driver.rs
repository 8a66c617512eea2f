//! Messages that a driver prints by itself.

/// Restarts the program with `XDG_RUNTIME_DIR` if it is not set. Returns if it is, or on failure.
///
/// Listing adapters makes Mesa's Vulkan layer look for a Wayland display. Without
/// `XDG_RUNTIME_DIR`, as in most containers, libwayland then prints an error before our first line.
/// wgpu has no switch for it; setting the own environment needs `unsafe`. The new program keeps the
/// process id. The folder does not exist, so it holds no display.
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
        // `exec` returns only on failure; then the driver may print its message.
        let refused = command.args(arguments).env(NAME, "/nonexistent").exec();
        log::info!("{NAME} is not set, and the program cannot start again with it: {refused}");
    }
}
