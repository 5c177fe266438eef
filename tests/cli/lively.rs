//! Nothing is silent for more than a second: what a terminal sees of long steps, against the clock.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rexpect::process::PtyProcess;

use super::{Place, vram};

/// What is promised.
const SILENCE: Duration = Duration::from_secs(1);

/// The longest time for which a command wrote nothing to its terminal, the longest by which a thread of
/// this test overslept meanwhile, and all that was written.
fn silence(command: Command) -> (Duration, Duration, String) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            let mut late = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let (start, nap) = (Instant::now(), Duration::from_millis(100));
                std::thread::sleep(nap);
                late = late.max(start.elapsed().saturating_sub(nap));
            }
            late
        });
        let process = PtyProcess::new(command).unwrap();
        let mut terminal = process.get_file_handle().unwrap();
        let (mut last, mut longest, mut seen) = (Instant::now(), Duration::ZERO, Vec::new());
        let mut piece = [0; 4096];
        // A terminal whose process has ended gives an error.
        while let Ok(bytes @ 1..) = terminal.read(&mut piece) {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            seen.extend_from_slice(&piece[..bytes]);
        }
        is_over.store(true, Ordering::Relaxed);
        (longest, late.join().unwrap(), String::from_utf8_lossy(&seen).into_owned())
    })
}

#[test]
fn long_steps_show_that_they_live() {
    let place = Place::new();
    place.write("text.txt", "Once upon a time there was a little girl. ".repeat(40));
    for (line, signs) in [
        // Fresh: everything is measured, made and compiled.
        ("run -n 4 -p One", &["opening the GPU", "measuring how long", "loading"][..]),
        ("bench -p 48 -n 8 -r 2", &["measuring", "3/4 runs", "eta"]),
        ("perplexity text.txt", &["scoring", "tokens"]),
    ] {
        let mut command = place.command(&format!("{line} {}", vram(6)));
        command
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .env("TERM", "xterm");
        let (longest, late, seen) = silence(command);
        for sign in signs {
            assert!(seen.contains(sign), "{line}: no {sign:?} in {seen:?}");
        }
        // Where this test's own thread is not woken in time, the program's is not either.
        let most = SILENCE + 4 * late;
        assert!(longest < most, "{line}: silent for {longest:?}, promised {SILENCE:?}, late {late:?}");
    }
}
