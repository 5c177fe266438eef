//! The program as its users meet it: real processes, their output, exit codes and files.

mod batching;
mod benching;
mod chatting;
#[cfg(target_os = "linux")]
mod drivers;
mod familiar;
mod generation;
mod killed;
#[cfg(unix)]
mod lively;
mod lost;
mod measuring;
mod packing;
mod planning;
mod processes;
mod refusals;
mod steady;
mod tuning;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use pipo_wgpu::cli::prepare::NO_TUNE_VARIABLE;

use crate::common::{fixture, gpu};

/// A folder of its own to work in, with the fixture as `model` and an empty cache.
struct Place {
    folder: TempDir,
}

/// A budget of so many MiB beside what the driver takes for itself, which on some machines is more than that.
fn vram(mib: u64) -> String {
    format!("--vram {}MiB", mib + driver_mib())
}

fn driver_mib() -> u64 {
    gpu().driver_share_bytes().div_ceil(1 << 20)
}

/// Whether the driver's own share hides the little model: no budget then makes its weights travel for sure. Says
/// so, because what is left out is tested where it does not.
fn hides_the_little_model() -> bool {
    let hides = driver_mib() > 0;
    if hides {
        eprintln!("SKIPPED: the driver takes {} MiB for itself, many times the model", driver_mib());
    }
    hides
}

/// What a finished process left.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("model")).unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            fs::copy(fixture("llama3_gqa").join(name), place.path("model").join(name)).unwrap();
        }
        let tokenizer = fixture("tokenizer").join("tokenizer.json");
        fs::copy(tokenizer, place.path("model/tokenizer.json")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Changes one of the model's JSON files.
    fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path("model").join(name);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// Changes a file's bytes.
    fn edit_bytes(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        edit(&mut bytes);
        self.write(name, bytes);
    }

    /// The names in a folder, in order.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let files = entries.map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file());
        let names = files.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// The program with the arguments of a line, which are split at white space.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipo-wgpu"));
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        command.env("PIPO_WGPU_CACHE", self.path("cache"));
        // The fastest shapes of the moment would be others in the next test.
        command.env(NO_TUNE_VARIABLE, "1");
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        // Mesa's layer that orders devices complains on stderr where there is no desktop.
        command.env("NODEVICE_SELECT", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a line to its end.
    fn run(&self, line: &str) -> Outcome {
        Outcome::of(self.command(line).output().unwrap())
    }

    /// Runs a line to its end with standard input from a pipe.
    fn feed(&self, line: &str, input: &[u8]) -> Outcome {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Outcome::of(child.wait_with_output().unwrap())
    }

    /// The least budget for a line, as its refusal names it: most units then travel. It is asked
    /// for because it depends on the machine, whose link is fed by one thread or by several.
    fn least_vram(&self, line: &str) -> String {
        let refused = self.run(&format!("{line} --vram 1KiB"));
        refused.refused(line, "--vram 1.00 KiB is too small");
        let (_, least) = refused.stderr.split_once("needs at least ").unwrap();
        format!("--vram {}", least.split(" (").next().unwrap().replace(' ', ""))
    }

    /// The standard output of a line that must succeed.
    fn output(&self, line: &str) -> String {
        self.run(line).succeeded(line).stdout
    }
}

impl Outcome {
    fn of(output: Output) -> Outcome {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Waits for the end of a process, and ends it if it takes longer than `patience`.
    fn within(patience: Duration, mut child: Child, name: &str) -> Outcome {
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > patience {
                child.kill().unwrap();
                panic!("{name}: still runs after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Outcome::of(child.wait_with_output().unwrap())
    }

    /// Checks that nothing failed and nothing looks like it.
    fn succeeded(self, line: &str) -> Outcome {
        assert_eq!(self.code, Some(0), "{line}: {}", self.stderr);
        assert!(!self.stderr.contains("error"), "{line}: {}", self.stderr);
        self
    }

    /// Checks that the program failed as it should, with a message that contains `expected`, before it
    /// had anything to say.
    fn refused(&self, name: &str, expected: &str) {
        assert_eq!(self.stdout, "", "{name}: nothing but text belongs on stdout");
        self.failed(name, expected);
    }

    /// Checks that the program failed as it should, with a message that contains `expected`.
    fn failed(&self, name: &str, expected: &str) {
        assert_eq!(self.code, Some(1), "{name}: {}{}", self.stdout, self.stderr);
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{name}: {}", self.stderr);
        assert!(errors[0].contains(expected), "{name}: expected `{expected}` in: {}", errors[0]);
        assert_eq!(self.stderr.lines().last(), Some(errors[0]), "{name}: the error comes last");
        for sign in ["panicked", "this is a bug"] {
            assert!(!self.stderr.contains(sign), "{name}: {}", self.stderr);
        }
    }
}

/// Runs cases beside each other, each in a place of its own.
fn each<T: Sync>(cases: &[T], check: impl Fn(&Place, &T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            check(&Place::new(), case);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// A tensor of a safetensors file: its shape and bytes.
fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(file).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Token ids of the fixture's recording.
fn recorded_ids(name: &str) -> Vec<i64> {
    let (_, bytes) = tensor(&fixture("llama3_gqa").join("expected.safetensors"), name);
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Numbers with commas between them, as `--ids` and `--print-ids` have them.
fn comma(ids: &[i64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
