//! Lines that are typed: a request to terminate ends the process also while it waits for one.

/// Reads what is typed. Nothing wakes a line editor that waits for a key: a request to terminate meanwhile ends
/// the process from beside it, with [`super::interrupted_exit_code`] and with the terminal as it was before.
/// Ctrl-C is the editor's.
#[cfg(unix)]
pub fn while_typing<T>(read: impl FnOnce() -> T) -> T {
    use std::io::{Write, stderr, stdin};
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    std::thread::scope(|scope| {
        let (_typing, typed) = channel::<()>();
        let before = tcgetattr(stdin()).ok();
        let watch = move || {
            while typed.recv_timeout(super::LOOK) == Err(RecvTimeoutError::Timeout) {
                if super::check_interrupt().is_err() && super::clear_interrupt().is_err() {
                    if let Some(before) = &before {
                        // What can be done about it is done.
                        let _ = tcsetattr(stdin(), OptionalActions::Now, before);
                    }
                    // Behind what was typed.
                    let _ = writeln!(stderr());
                    std::process::exit(super::interrupted_exit_code().into());
                }
            }
        };
        // Without such a thread, the request is heard when the line is there.
        let _ = std::thread::Builder::new().name("termination".into()).spawn_scoped(scope, watch);
        read()
    })
}

/// Reads what is typed.
#[cfg(not(unix))]
pub fn while_typing<T>(read: impl FnOnce() -> T) -> T {
    read()
}
