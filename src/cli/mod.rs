//! The command line: verbs, options, progress and figures.

pub mod args;
pub mod batch;
pub mod bench;
pub mod chat;
mod collect;
mod described;
pub mod devices;
#[doc(hidden)]
pub mod doors;
pub mod generate;
pub mod hub;
pub mod load;
pub mod manual;
pub mod measure;
pub mod open;
pub mod output;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod prompt;
mod repack;
pub mod serve;
pub mod vocabulary;
pub mod words;
pub mod writer;

use std::io::{self, Write};
use std::panic::{PanicHookInfo, resume_unwind};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

use clap::Parser;

use crate::checkpoint::Checkpoint;
use crate::cli::args::{Args, PackArgs, Verb};
use crate::cli::described::Described;
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::os;
use crate::pack::Packed;
use crate::quant::WeightKind;

/// Stack of the thread that does everything: limits on how deep a file may nest are made for it, and
/// systems give a first thread as little as 1 MiB, or what `ulimit -s` says.
const STACK_BYTES: usize = 8 << 20;

/// Parses the command line, runs the verb and turns the outcome into an exit code: 0 done, 1
/// failed, 2 wrong usage, 130 interrupted, 143 asked to terminate.
pub fn main() -> ExitCode {
    install_panic_hook();
    let (tell, told) = channel();
    let work = move || {
        let _ = tell.send(all());
        // It never ends: NVIDIA's driver has something to clean up behind each thread that has used it, which
        // is a segmentation fault where another thread has unloaded the driver before.
        loop {
            thread::park();
        }
    };
    match thread::Builder::new().name("main".into()).stack_size(STACK_BYTES).spawn(work) {
        Ok(thread) => told.recv().unwrap_or_else(|_| match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(never) => never,
        }),
        // What is not nested may still be done.
        Err(_) => all(),
    }
}

fn all() -> ExitCode {
    os::let_large_writes_fail();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu=error,naga=error"))
        .init();
    match Args::try_parse() {
        Ok(args) => exit_code(run(&args), &mut io::stderr()),
        Err(usage) => {
            match usage.print() {
                Err(problem) if !os::is_broken_pipe(&problem) => {
                    return exit_code(Err(Error::io("write", "the help")(problem)), &mut io::stderr());
                }
                _ => {}
            }
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// Runs one verb.
///
/// # Errors
/// Whatever the verb reports.
pub fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Run(args) => generate::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Batch(args) => batch::run(args),
        Verb::Pack(args) => pack(args),
        Verb::Plan(args) => plan::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Devices(args) => devices::run(args),
        Verb::Logits(args) => measure::logits(args),
        Verb::Perplexity(args) => measure::perplexity(args),
        Verb::Completions(args) => manual::completions(args.shell),
        Verb::Man(args) => manual::pages(args.folder.as_deref()),
    }
}

fn pack(args: &PackArgs) -> Result<()> {
    output::refuse_other(&args.dst)?;
    let kind = args.source.weights.unwrap_or(WeightKind::W4);
    match (&args.src, &args.source.dummy) {
        (_, Some(shape)) => {
            hub::refuse_revision(&args.source, "no name on the hub is given")?;
            open::pack_dummy(shape, kind, &args.dst)?;
        }
        (Some(path), None) if !open::is_checkpoint(path) && path.is_file() => {
            repack::repack(&Packed::open(path)?, args.source.weights, &args.dst)?;
        }
        (Some(path), None) => {
            let path = hub::localized(path, &args.source)?;
            let checkpoint = Checkpoint::open(&path)?;
            open::refuse_own_source(&path, &args.dst)?;
            let described = Described::new(&checkpoint, args.source.weights)?;
            open::pack_checkpoint(&checkpoint, &described, &args.dst)?;
        }
        (None, None) => {
            return Err(Error::Usage("expected a model folder, a GGUF file or --dummy, found none".into()));
        }
    }
    note(format_args!("packed into {}", args.dst.display()));
    Ok(())
}

/// Reports a failure on one line. A closed pipe is no failure: `pipo-wgpu run | head` is meant
/// to end quietly; neither needs Ctrl-C words.
fn exit_code(result: Result<()>, report: &mut dyn Write) -> ExitCode {
    match result {
        Ok(()) | Err(Error::ClosedPipe) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => ExitCode::from(os::interrupted_exit_code()),
        Err(error) => {
            // Where stderr is closed as well nobody is left to tell.
            let _ = writeln!(report, "error: {}", one_line(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A panic is our mistake: asks for a report in one sentence, with the usual details only where
/// `RUST_BACKTRACE` asks for them.
fn install_panic_hook() {
    let detailed = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if crate::text::is_caught() {
            return;
        }
        let _ = writeln!(io::stderr(), "{}", bug_report(info));
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            detailed(info);
        }
    }));
}

fn bug_report(info: &PanicHookInfo<'_>) -> String {
    let what = one_line(info.payload_as_str().unwrap_or("no message"));
    let place = info.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    format!(
        "error: this is a bug in pipo-wgpu {} ({place}: {what}); please report this line with the command you ran",
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_their_exit_codes_and_lines() {
        let failed = || Error::Usage("expected a,\n  found b".into());
        let table = [
            (Ok(()), ExitCode::SUCCESS, ""),
            (Err(Error::ClosedPipe), ExitCode::SUCCESS, ""),
            (Err(Error::Interrupted), ExitCode::from(130), ""),
            (Err(failed()), ExitCode::FAILURE, "error: expected a, found b\n"),
        ];
        for (result, code, line) in table {
            let mut report = Vec::new();
            // `ExitCode` cannot be compared, only shown.
            assert_eq!(format!("{:?}", exit_code(result, &mut report)), format!("{code:?}"));
            assert_eq!(String::from_utf8(report).unwrap(), line);
        }
    }
}
