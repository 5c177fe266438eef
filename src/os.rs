//! What differs between operating systems, in one place, each with a portable fallback.

mod direct;
#[doc(hidden)]
pub mod faults;
mod file;
mod input;
mod interrupt;
mod memory;
mod terminal;
mod threads;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

pub use direct::{
    DIRECT_ALIGNMENT, DISK_PIECE_BYTES, DISK_THREADS, DirectFile, DiskRate, Target, disk_rate,
    with_thread_memory,
};
pub use file::{destination, folder_of, forget_cached, let_large_writes_fail, temporary_in, write_whole};
pub use input::{FromStart, Input, read_most};
pub use interrupt::{LOOK, check_interrupt, clear_interrupt, interrupt_flag, interrupted_exit_code};
pub use memory::{AnonymousMemory, SharedMemory};
pub use terminal::while_typing;
pub use threads::{side_by_side, spawn, start_pool};

use crate::error::{Error, Result};

/// Environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "PIPO_WGPU_CACHE";

/// The folder for packed models, which may not exist yet: [`CACHE_VARIABLE`], else the user's
/// cache folder as the operating system defines it.
///
/// # Errors
/// [`Error::Usage`] where neither exists, or the variable is no absolute path.
pub fn cache_folder() -> Result<PathBuf> {
    let project =
        || directories::ProjectDirs::from("", "", "pipo-wgpu").map(|dirs| dirs.cache_dir().to_path_buf());
    cache_folder_from(std::env::var_os(CACHE_VARIABLE), project)
}

fn cache_folder_from(variable: Option<OsString>, project: impl Fn() -> Option<PathBuf>) -> Result<PathBuf> {
    match variable.filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => Ok(folder),
        Some(folder) => Err(Error::Usage(format!(
            "{CACHE_VARIABLE}: expected an absolute path, found {}; start it at the root",
            folder.display(),
        ))),
        None => project().ok_or_else(|| {
            Error::Usage(format!(
                "this account has no home folder for the cache; set {CACHE_VARIABLE} to a folder"
            ))
        }),
    }
}

/// Bytes of main memory that can be taken without swapping, a container's limit included;
/// `None` where the operating system does not say.
pub fn free_ram_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0)?;
    let container = system.cgroup_limits().map(|limits| limits.free_memory);
    Some(container.map_or(machine, |container| container.min(machine)))
}

/// The processor's name, or at least its kind.
pub fn cpu_name() -> String {
    let name = sysinfo::System::new().ok().and_then(|mut system| {
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        system.cpus().first().map(|cpu| cpu.brand().trim().to_owned())
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Whether a write failed because the reader of the pipe went away.
pub fn is_broken_pipe(error: &io::Error) -> bool {
    /// `ERROR_NO_DATA`: Windows' answer while the pipe is being closed.
    const WINDOWS_NO_DATA: i32 = 232;
    error.kind() == io::ErrorKind::BrokenPipe
        || (cfg!(windows) && error.raw_os_error() == Some(WINDOWS_NO_DATA))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_users_cache_folder() {
        let absolute = std::env::temp_dir();
        let home = || Some(PathBuf::from("home-cache"));
        let nowhere = || None;
        assert_eq!(cache_folder_from(Some(absolute.clone().into()), home).unwrap(), absolute);
        assert_eq!(cache_folder_from(None, home).unwrap(), PathBuf::from("home-cache"));
        assert_eq!(cache_folder_from(Some("".into()), home).unwrap(), PathBuf::from("home-cache"));
        let problem = cache_folder_from(Some("some/where".into()), home).unwrap_err().to_string();
        assert!(problem.contains("absolute") && problem.contains("some/where"), "{problem}");
        assert!(cache_folder_from(None, nowhere).unwrap_err().to_string().contains(CACHE_VARIABLE));
    }

    #[test]
    fn free_memory_is_plausible() {
        let free = free_ram_bytes().unwrap();
        assert!((1 << 20..1 << 50).contains(&free), "{free}");
    }

    #[test]
    fn only_a_closed_pipe_is_a_broken_pipe() {
        assert!(is_broken_pipe(&io::ErrorKind::BrokenPipe.into()));
        assert!(!is_broken_pipe(&io::ErrorKind::StorageFull.into()));
    }
}
