//! Ctrl-C and requests to terminate: the first one is a flag, the second ends the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

/// How often whoever waits for something else looks for an interrupt.
pub const LOOK: Duration = Duration::from_millis(50);

/// What shells add to a signal's number for the exit code of who ended by it.
const SIGNAL_EXIT_CODE: u8 = 128;
/// SIGINT, which is Ctrl-C.
const CTRL_C: u8 = 2;

static RAISED: AtomicBool = AtomicBool::new(false);
/// The number of the last signal; none came yet where it is 0.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);

/// A flag that the first Ctrl-C (or request to terminate) raises; the second ends the process at once with
/// [`interrupted_exit_code`].
///
/// The first call installs the handlers; all calls give the same flag. Where none can be installed, a warning
/// is logged and Ctrl-C keeps ending the process as it always does.
pub fn interrupt_flag() -> &'static AtomicBool {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if let Err(problem) = install() {
            log::warn!("Ctrl-C will not end the run cleanly: {problem}");
        }
    });
    &RAISED
}

#[cfg(unix)]
fn install() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::flag;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // `nohup` means that a closed terminal is nothing to end for.
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        // In this order: only a flag that an earlier signal has raised ends the process.
        flag::register_conditional_shutdown(signal, i32::from(SIGNAL_EXIT_CODE) + signal, &RAISED)?;
        flag::register_usize(signal, &SIGNAL, signal.unsigned_abs() as usize)?;
        flag::register(signal, &RAISED)?;
    }
    Ok(())
}

/// Whether whoever started this process wants a signal to be ignored; no where the operating system has no
/// `/proc`.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        SIGNAL.store(usize::from(CTRL_C), Ordering::SeqCst);
        if RAISED.swap(true, Ordering::SeqCst) {
            std::process::exit(interrupted_exit_code().into());
        }
    })
}

/// Exit code of a process that was interrupted, as shells expect it: 128 and the signal's number, 130 after
/// Ctrl-C and 143 after a request to terminate.
pub fn interrupted_exit_code() -> u8 {
    let signal = u8::try_from(SIGNAL.load(Ordering::SeqCst)).ok().filter(|signal| *signal > 0);
    SIGNAL_EXIT_CODE.saturating_add(signal.unwrap_or(CTRL_C))
}

/// Turns a raised [`interrupt_flag`] into the error that ends the run.
///
/// # Errors
/// [`Error::Interrupted`] once Ctrl-C was pressed.
pub fn check_interrupt() -> Result<()> {
    match interrupt_flag().load(Ordering::SeqCst) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// Takes note of a Ctrl-C that has ended what it was meant to end.
///
/// # Errors
/// [`Error::Interrupted`] where it was a request to terminate, which means all of the process.
pub fn clear_interrupt() -> Result<()> {
    if interrupted_exit_code() != SIGNAL_EXIT_CODE + CTRL_C {
        return Err(Error::Interrupted);
    }
    RAISED.store(false, Ordering::SeqCst);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interrupt_flag_is_one_flag() {
        assert!(std::ptr::eq(interrupt_flag(), interrupt_flag()));
        check_interrupt().unwrap();
        assert_eq!(interrupted_exit_code(), 130);
    }
}
