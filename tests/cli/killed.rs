//! Processes that are killed, and files that are cut under them: a sentence where somebody is left to say
//! it, and the next run works.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::Digest;

use super::{Outcome, Place, hides_the_little_model};
use crate::common::fixture;

/// A process that takes longer to end than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait(child: Child, name: &str) -> Outcome {
    Outcome::within(PATIENCE, child, name)
}

/// Moments within a time, as a fixed walk gives them.
fn moments(count: u32, within: Duration) -> impl Iterator<Item = Duration> {
    (1..=count).map(move |number| within * (number * 37 % count) / count)
}

fn partials(place: &Place, folder: &str) -> usize {
    place.names(folder).iter().filter(|name| name.ends_with(".partial")).count()
}

/// Packing is killed again and again, and goes on as if it had not been.
fn kill_packing(kills: u32) {
    let place = Place::new();
    let line = "pack --dummy llama-125m out/packed --weights w8";
    let start = Instant::now();
    place.run(line).succeeded(line);
    let whole = start.elapsed();
    let right = fs::read(place.path("out/packed")).unwrap();
    fs::remove_file(place.path("out/packed")).unwrap();
    let mut killed = 0;
    for moment in moments(kills, whole) {
        let mut child = place.command(line).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let is_done = child.wait().unwrap().success();
        killed += u32::from(!is_done);
        match fs::read(place.path("out/packed")) {
            Ok(found) => assert!(found == right, "killed after {moment:?}: half a file under the final name"),
            Err(_) => assert!(!is_done),
        }
        // At most what the last one left.
        assert!(partials(&place, "out") <= 1, "{:?}", place.names("out"));
        let _ = fs::remove_file(place.path("out/packed"));
    }
    assert!(killed > 0, "nothing was killed");
    place.run(line).succeeded(line);
    assert!(fs::read(place.path("out/packed")).unwrap() == right);
    assert_eq!(place.names("out"), ["packed"]);
}

#[test]
fn packing_may_be_killed_at_any_time() {
    kill_packing(3);
}

#[test]
#[ignore = "many times the same"]
fn packing_may_be_killed_at_many_times() {
    kill_packing(40);
}

/// A hub with one repository that sends slowly.
struct SlowHub {
    endpoint: String,
    /// Contents that were asked for, each with the byte from which on.
    asked: Arc<Mutex<Vec<(String, usize)>>>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl SlowHub {
    fn new(files: HashMap<String, Vec<u8>>, pause_ms: u64) -> SlowHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (files, asked) = (Arc::new(files), Arc::default());
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, heard) = (Arc::clone(&files), Arc::clone(&heard));
                std::thread::spawn(move || answer(stream, &files, &heard, pause_ms));
            }
        });
        SlowHub { endpoint, asked }
    }
}

/// Answers one request; a content in pieces with pauses between them. Who went away is not missed.
fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    heard: &Mutex<Vec<(String, usize)>>,
    pause_ms: u64,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let path = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
    let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let from = line.to_lowercase().strip_prefix("range: bytes=")?.split('-').next()?.parse::<usize>();
        from.ok()
    });
    let hash =
        |bytes: &[u8]| sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (status, body, pause) = if path.starts_with("/api/models/org/model/revision/") {
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            json!({"rfilename": name, "size": bytes.len(),
                   "lfs": {"sha256": hash(bytes), "size": bytes.len()}})
        };
        let siblings: Vec<_> = files.iter().map(file).collect();
        ("200 OK", json!({"sha": COMMIT, "siblings": siblings}).to_string().into_bytes(), 0)
    } else {
        let name = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")).unwrap_or_default();
        let bytes = files.get(name).cloned().unwrap_or_default();
        heard.lock().unwrap().push((name.to_owned(), range.unwrap_or(0)));
        ("206 Partial Content", bytes[range.unwrap_or(0).min(bytes.len())..].to_vec(), pause_ms)
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut sent = stream.write_all(head.as_bytes());
    for piece in body.chunks(4096) {
        sent = sent.and_then(|()| stream.write_all(piece));
        if sent.is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
}

/// A download is killed again and again; what had come is not fetched twice, and all is whole at the end.
#[test]
fn a_download_may_be_killed_at_any_time() {
    let place = Place::new();
    let mut files = HashMap::new();
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        files.insert(name.to_owned(), fs::read(place.path("model").join(name)).unwrap());
    }
    let hub = SlowHub::new(files.clone(), 5);
    let command = || {
        let mut command = place.command("pack org/model out/packed");
        command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", place.path("hub"));
        command.env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
        command
    };
    let mut killed = 0;
    for moment in moments(6, Duration::from_millis(600)) {
        let mut child = command().spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
    }
    assert!(killed > 2, "{killed}");
    let outcome = wait(command().spawn().unwrap(), "the last download");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let snapshot = place.path(&format!("hub/hub/models--org--model/snapshots/{COMMIT}"));
    for (name, bytes) in &files {
        assert!(fs::read(snapshot.join(name)).unwrap() == *bytes, "{name}");
    }
    let blobs = place.names("hub/hub/models--org--model/blobs");
    assert!(blobs.iter().all(|name| !name.ends_with(".incomplete")), "{blobs:?}");
    place.run("pack model out/right").succeeded("pack model out/right");
    assert!(fs::read(place.path("out/packed")).unwrap() == fs::read(place.path("out/right")).unwrap());
}

/// Two processes want the same model: one waits for what the other gets; where that one is killed in the
/// middle, it goes on from there.
#[test]
fn a_download_that_another_process_began_is_waited_for() {
    for is_killed in [false, true] {
        let place = Place::new();
        let mut files = HashMap::new();
        for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
            files.insert(name.to_owned(), fs::read(place.path("model").join(name)).unwrap());
        }
        // Slow enough for somebody else to come.
        let hub = SlowHub::new(files.clone(), 25);
        let begin = |out: &str| {
            let mut command = place.command(&format!("pack org/model {out}"));
            command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", place.path("hub"));
            command.env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
            command.spawn().unwrap()
        };
        let began = || hub.asked.lock().unwrap().iter().any(|(name, _)| name == "model.safetensors");
        let mut first = begin("out/first");
        let start = Instant::now();
        while !began() {
            assert!(start.elapsed() < PATIENCE, "nothing is asked for");
            std::thread::sleep(Duration::from_millis(10));
        }
        let second = begin("out/second");
        std::thread::sleep(Duration::from_millis(400));
        if is_killed {
            first.kill().unwrap();
        }
        let (first, second) = (wait(first, "the first"), wait(second, "the second"));
        assert_eq!(first.code, (!is_killed).then_some(0), "{}", first.stderr);
        assert_eq!(second.code, Some(0), "{}", second.stderr);
        let repo = place.path("hub/hub/models--org--model");
        for (name, bytes) in &files {
            assert!(fs::read(repo.join("snapshots").join(COMMIT).join(name)).unwrap() == *bytes, "{name}");
        }
        let blobs = place.names("hub/hub/models--org--model/blobs");
        assert!(blobs.len() == files.len() && !blobs.iter().any(|b| b.ends_with(".incomplete")), "{blobs:?}");
        let asked = hub.asked.lock().unwrap();
        let from: Vec<_> = asked.iter().filter(|(name, _)| name == "model.safetensors").collect();
        assert_eq!(from.len(), 1 + usize::from(is_killed), "{asked:?}");
        assert!(!is_killed || from[1].1 > 0, "it goes on where the other one was: {asked:?}");
    }
}

/// The program where a shell's `ulimit` gives it less: `-f` and so many KiB are a disk with too little room.
#[cfg(target_os = "linux")]
fn limited(place: &Place, limit: &str, line: &str) -> std::process::Command {
    let like = place.command("");
    let mut command = std::process::Command::new("bash");
    let program = env!("CARGO_BIN_EXE_pipo-wgpu");
    command.arg("-c").arg(format!("ulimit {limit}; exec {program} {line}"));
    command.current_dir(like.get_current_dir().unwrap());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// A sentence, and nothing is left.
#[cfg(target_os = "linux")]
#[test]
fn files_that_may_not_become_so_large_are_said() {
    let place = Place::new();
    for (limit, line) in
        [("-f 16", "pack model out/packed"), ("-f 1", "run model -p Hello -n 4 --trace out/trace.json")]
    {
        fs::create_dir_all(place.path("out")).unwrap();
        let outcome = Outcome::of(limited(&place, limit, line).output().unwrap());
        assert_eq!(outcome.code, Some(1), "{line}: {}", outcome.stderr);
        let error = outcome.stderr.lines().last().unwrap_or_default();
        assert!(
            error.starts_with("error: ") && error.to_lowercase().contains("too large"),
            "{line}: {error}"
        );
        assert_eq!(place.names("out"), [""; 0], "{line}");
    }
}

/// Room for the program, but not for the stacks of so many threads.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_cannot_start_are_said() {
    let place = Place::new();
    let line = "pack model out/packed";
    let mut command = limited(&place, "-v 1000000", line);
    let outcome = Outcome::of(command.env("RAYON_NUM_THREADS", "2000").output().unwrap());
    outcome.refused(line, "cannot start another thread: ");
    assert_eq!(place.names("out"), [""; 0]);
}

/// A template that takes more stack than there is, were it that of the first thread.
#[cfg(target_os = "linux")]
#[test]
fn a_small_stack_is_not_the_programs() {
    let place = Place::new();
    let template = format!("{{{{ 'Hello'{} }}}}", "|string".repeat(2000));
    place.write("model/chat_template.jinja", template);
    let line = "run model -p x -n 2 --temperature 0";
    let text = place.output(line);
    let outcome = Outcome::of(limited(&place, "-s 256", line).output().unwrap());
    assert_eq!((outcome.code, outcome.stdout), (Some(0), text), "{}", outcome.stderr);
}

/// A conversation that cannot be written again is what it was, and the chat goes on.
#[cfg(target_os = "linux")]
#[test]
fn a_chat_that_cannot_be_saved_leaves_the_old_file_whole() {
    use std::io::Write;
    let place = Place::new();
    let text = |system: &str, end: &str| format!("/system {system}\n/save out/talk.json\n{end}/exit\n");
    fs::create_dir_all(place.path("out")).unwrap();
    place.feed("run model --chat", text("Short", "").as_bytes()).succeeded("the first time");
    let old = fs::read(place.path("out/talk.json")).unwrap();
    let line = "run model --chat -n 2 --temperature 0 --ignore-eos";
    let mut command = limited(&place, "-f 1", line);
    command.stdin(std::process::Stdio::piped());
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let input = text(&"long ".repeat(400), "/system \"\"\nHello\n");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let outcome = wait(child, line);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("talk.json") && error.to_lowercase().contains("too large"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("2 written"), "{}", outcome.stderr);
    assert!(fs::read(place.path("out/talk.json")).unwrap() == old);
    assert_eq!(place.names("out"), ["talk.json"]);
}

/// The packed file is cut while its weights travel from it.
#[test]
fn a_file_that_is_cut_under_a_running_text_is_said() {
    if hides_the_little_model() {
        return;
    }
    let place = Place::new();
    place.run("pack model packed").succeeded("pack");
    let line = "run packed -p Hello -n 250 --ignore-eos --temperature 0 --route staged";
    let least = place.least_vram(line);
    for length in [0, 8192] {
        place.run("pack model packed").succeeded("pack");
        let mut child = place.command(&format!("{line} {least}")).spawn().unwrap();
        let begun = child.stdout.as_mut().unwrap().read_exact(&mut [0]);
        assert!(begun.is_ok(), "{line} {least}: {}", wait(child, line).stderr);
        let file = fs::File::options().write(true).open(place.path("packed")).unwrap();
        file.set_len(length).unwrap();
        let outcome = wait(child, line);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let error = outcome.stderr.lines().last().unwrap_or_default();
        assert!(error.starts_with("error: packed: ") && error.contains("cut short"), "{error}");
    }
}

/// A checkpoint's file is cut while it is packed; what a map of it would have ended by a signal.
#[test]
fn a_checkpoint_that_is_cut_under_packing_is_said() {
    let place = Place::new();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("quantised/gptq_act").join(name), place.path("model").join(name)).unwrap();
    }
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let whole = fs::read(place.path("model/model.safetensors")).unwrap();
    let line = "pack model out/packed";
    place.run(line).succeeded(line);
    let right = fs::read(place.path("out/packed")).unwrap();
    for moment in moments(8, Duration::from_millis(60)) {
        let _ = fs::remove_file(place.path("out/packed"));
        let child = place.command(line).spawn().unwrap();
        std::thread::sleep(moment);
        let file = fs::File::options().write(true).open(place.path("model/model.safetensors")).unwrap();
        file.set_len(whole.len() as u64 / 3).unwrap();
        let outcome = wait(child, line);
        match outcome.code {
            Some(0) => assert!(fs::read(place.path("out/packed")).unwrap() == right),
            Some(1) => assert!(outcome.stderr.contains("model.safetensors"), "{}", outcome.stderr),
            other => panic!("{other:?}: {}", outcome.stderr),
        }
        place.write("model/model.safetensors", &whole);
    }
    place.run(line).succeeded(line);
    assert!(fs::read(place.path("out/packed")).unwrap() == right);
}
