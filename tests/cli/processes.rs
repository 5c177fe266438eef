//! Pipes that close early and Ctrl-C: a process ends soon, quietly and with the right code.

use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

use super::{Outcome, Place};

/// A process that takes longer to end than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Text that takes many seconds where it is not cut short.
const LONG: &str = "run -p Once -n 2000 --ignore-eos --temperature 1 --seed 1";

/// Waits for the end of a process, and ends it if it hangs.
fn wait(child: Child, name: &str) -> Outcome {
    Outcome::within(PATIENCE, child, name)
}

fn quiet(outcome: &Outcome, name: &str) {
    for sign in ["panicked", "this is a bug", "error"] {
        assert!(!outcome.stderr.contains(sign), "{name}: {}", outcome.stderr);
    }
}

/// Waits for the first byte of generated text.
fn first_byte(child: &mut Child) {
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
}

#[test]
fn a_reader_that_had_enough_ends_the_run() {
    let place = Place::new();
    let mut child = place.command(LONG).spawn().unwrap();
    first_byte(&mut child);
    drop(child.stdout.take());
    let outcome = wait(child, LONG);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    quiet(&outcome, LONG);
}

#[test]
fn reports_may_go_unread() {
    let place = Place::new();
    for line in ["devices", "devices --json", "plan model", "run model -n 4", "--help", "run --help"] {
        let mut child = place.command(line).spawn().unwrap();
        drop(child.stdout.take());
        let outcome = wait(child, line);
        assert_eq!(outcome.code, Some(0), "{line}: {}", outcome.stderr);
        quiet(&outcome, line);
    }
}

/// As in `pipo-wgpu run 2>&1 | head`: figures that nobody reads are no reason to stop.
#[test]
fn figures_may_go_unread() {
    let place = Place::new();
    let line = "run model -p Hello -n 4 --temperature 0 --ignore-eos";
    let text = place.output(line);
    let mut child = place.command(line).spawn().unwrap();
    drop(child.stderr.take());
    let outcome = wait(child, line);
    assert_eq!((outcome.code, outcome.stdout), (Some(0), text));

    for (line, code) in [("run no-such-folder", 1), ("rum", 2)] {
        let mut child = place.command(line).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(wait(child, line).code, Some(code), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_run_at_once() {
    let place = Place::new();
    // 128 and the signal's number.
    for (name, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let mut child = place.command(LONG).spawn().unwrap();
        first_byte(&mut child);
        signal(&child, name);
        let start = Instant::now();
        let outcome = wait(child, name);
        assert_eq!(outcome.code, Some(code), "{name}: {}", outcome.stderr);
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: took {:?}", start.elapsed());
        quiet(&outcome, name);
    }
}

/// From a pipe nobody says what is wanted instead of an answer that was stopped, whether the next line
/// is there already or never comes.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_chat_from_a_pipe() {
    use std::io::Write;
    let place = Place::new();
    let line = "run --chat -n 900 --ignore-eos --temperature 1 --seed 1";
    for (said, name, code) in
        [("Once\nMore\nAnd then\n", "-INT", 130), ("Once\n", "-TERM", 143), ("", "-TERM", 143)]
    {
        let mut child = place.command(line).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(said.as_bytes()).unwrap();
        if said.is_empty() {
            // It waits for the first message then.
            std::thread::sleep(Duration::from_secs(6));
        } else {
            first_byte(&mut child);
        }
        signal(&child, name);
        let outcome = wait(child, name);
        assert_eq!(outcome.code, Some(code), "{name}: {}", outcome.stderr);
        quiet(&outcome, name);
        drop(input);
    }
}

/// Whoever starts it with `nohup` wants it to outlive the terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_nobody_waits_for_may_close() {
    let place = Place::new();
    let line = "run -p Once -n 60 --ignore-eos --temperature 0";
    let text = place.output(line);
    let like = place.command(line);
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pipo-wgpu")]);
    command.args(like.get_args()).current_dir(like.get_current_dir().unwrap());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal(&child, "-HUP");
    let outcome = wait(child, line);
    assert_eq!((outcome.code, outcome.stdout), (Some(0), text[1..].to_owned()), "{}", outcome.stderr);
}

/// A server ends well when it is asked to, and at once when it is asked twice.
#[cfg(unix)]
#[test]
fn a_server_ends_as_it_is_asked_to() {
    use std::io::{BufRead, BufReader, Write};
    let place = Place::new();
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        for is_twice in [false, true] {
            let mut child = place.command("serve --port 0 --patience 60").spawn().unwrap();
            let mut line = String::new();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            output.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix("listening on http://").unwrap();
            let mut client = std::net::TcpStream::connect(address).unwrap();
            if is_twice {
                let body = r#"{"prompt": "Once", "max_tokens": 3000, "ignore_eos": true, "stream": true}"#;
                let length = body.len();
                let head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
                write!(client, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            signal(&child, name);
            if is_twice {
                // It waits for the answer by now.
                std::thread::sleep(Duration::from_millis(500));
                assert!(child.try_wait().unwrap().is_none(), "{name}: it has an answer to end");
                signal(&child, name);
            }
            let outcome = wait(child, name);
            assert_eq!(outcome.code, Some(if is_twice { code } else { 0 }), "{name}: {}", outcome.stderr);
            quiet(&outcome, name);
        }
    }
}

/// What the other texts of a batch had come to is not lost.
#[cfg(unix)]
#[test]
fn ctrl_c_shows_what_there_is_of_every_text() {
    let place = Place::new();
    let line = format!("{LONG} --batch 3");
    let mut child = place.command(&line).spawn().unwrap();
    first_byte(&mut child);
    signal(&child, "-INT");
    let outcome = wait(child, &line);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    quiet(&outcome, &line);
    for head in ["-- 1 of 3 ---\n", "\n--- 2 of 3 ---\n", "\n--- 3 of 3 ---\n"] {
        assert!(outcome.stdout.contains(head), "{head}: {}", outcome.stdout);
    }
    assert!(outcome.stdout.ends_with('\n'));
}

#[cfg(unix)]
pub(super) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Packing something large is under way when Ctrl-C comes.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_part_of_a_file() {
    let place = Place::new();
    let line = "pack --dummy tinyllama-1.1b out/packed";
    let child = place.command(line).spawn().unwrap();
    let start = Instant::now();
    while place.names("out").is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    let outcome = wait(child, line);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    quiet(&outcome, line);
    assert_eq!(place.names("out"), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    // Without a seed, a text may come to nothing, which needs no room.
    let line = "run model -p Hello -n 8 --temperature 0 --ignore-eos";
    let child = place.command(line).stdout(full).spawn().unwrap();
    wait(child, "/dev/full").refused("/dev/full", "cannot write to standard output: No space left");
    place.write("text.txt", "Once upon a time there was a dragon. ".repeat(4));
    place.write("talk", "Hello\nMore\n");
    for line in [
        "run model -p Hello -n 2 --json",
        "run model --chat -n 4 --ignore-eos --temperature 0",
        "plan model",
        "devices",
        "perplexity model text.txt",
        "bench model -p 4 -n 2 -r 1 -d 0",
        "completions bash",
        "man",
        "--help",
        "bench --help",
        "--version",
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let talk = std::fs::File::open(place.path("talk")).unwrap();
        let child = place.command(line).stdin(talk).stdout(full).spawn().unwrap();
        wait(child, line).refused(line, "No space left");
    }
}

/// What has no end is not read to it.
#[cfg(unix)]
#[test]
fn what_has_no_end_is_refused() {
    let place = Place::new();
    let request =
        r#"{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 2}}"#;
    place.write("in.jsonl", request);
    for (line, complaint) in [
        ("batch model /dev/zero -o out.jsonl", "expected a file of requests, found a device or a pipe"),
        ("run model --prompt-file /dev/zero", "expected a prompt of at most 8.00 MiB"),
        ("bench --compare /dev/zero in.jsonl", "/dev/zero: expected at most 268435456 bytes, found more"),
        ("perplexity model /dev/zero", "/dev/zero: expected at most 268435456 bytes, found more"),
    ] {
        place.run(line).refused(line, complaint);
    }
    let line = "perplexity model /dev/stdin";
    let mut endless = std::process::Command::new("yes").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let child = place.command(line).stdin(endless.stdout.take().unwrap()).spawn().unwrap();
    wait(child, line).refused(line, "/dev/stdin: expected at most 268435456 bytes, found more");
    // It cannot write to a pipe that nobody reads.
    endless.wait().unwrap();
    let chat = place.feed("run model --chat", b"/load /dev/zero\n");
    assert!(chat.stderr.contains("/dev/zero: expected at most"), "{}", chat.stderr);
}

/// What is renamed over a device or a pipe would be in its place, for everybody; a link stays a link.
#[cfg(unix)]
#[test]
fn only_files_are_written_over() {
    let place = Place::new();
    place.write("text.txt", "Once upon a time there was a dragon.");
    let request =
        r#"{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 2}}"#;
    place.write("in.jsonl", request);
    place.output("run model -p Hi -n 2 --trace rows.json");
    let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status().unwrap();
    assert!(made.success());
    for line in [
        "run model -p Hi -n 2 --trace pipe",
        "logits model --ids 1,2 --out pipe",
        "pack model pipe",
        "bench --plot pipe rows.json",
        "batch model in.jsonl -o pipe",
    ] {
        place.run(line).refused(line, "pipe: expected the name of a file to write, found a device or a pipe");
        use std::os::unix::fs::FileTypeExt;
        assert!(place.path("pipe").symlink_metadata().unwrap().file_type().is_fifo(), "{line}");
    }
    let chat = place.feed("run model --chat -n 2", b"/save pipe\n");
    assert!(chat.stderr.contains("pipe: expected the name of a file to write"), "{}", chat.stderr);
    std::fs::create_dir(place.path("far")).unwrap();
    for (line, name) in [
        ("run model -p Hi -n 2 --trace", "trace.json"),
        ("logits model --ids 1,2 --out", "logits.safetensors"),
        ("pack model", "packed"),
    ] {
        place.write(&format!("far/{name}"), "old");
        std::os::unix::fs::symlink(format!("far/{name}"), place.path(name)).unwrap();
        place.run(&format!("{line} {name}")).succeeded(line);
        assert!(place.path(name).symlink_metadata().unwrap().is_symlink(), "{name}");
        assert!(std::fs::metadata(place.path(&format!("far/{name}"))).unwrap().len() > 3, "{name}");
    }
}
