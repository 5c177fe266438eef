//! The command line: verbs, options, progress and figures.

pub mod args;
pub mod output;
pub mod progress;
pub mod prompt;

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::args::{Args, Verb};
use crate::error::{Error, Result};
use crate::os;

/// Parses the command line, runs the verb and turns the outcome into an exit code: 0 done, 1
/// failed, 2 wrong usage, 130 interrupted.
pub fn main() -> ExitCode {
    install_panic_hook();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu=error,naga=error"))
        .init();
    match Args::try_parse() {
        Ok(args) => exit_code(run(&args), &mut io::stderr()),
        Err(usage) => {
            // Help and usage can only go to a closed pipe or be shown; neither needs a report.
            let _ = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// Runs one verb.
///
/// # Errors
/// Whatever the verb reports.
pub fn run(args: &Args) -> Result<()> {
    let name = match args.verb {
        Verb::Run(_) => "run",
        Verb::Pack(_) => "pack",
        Verb::Plan(_) => "plan",
        Verb::Devices(_) => "devices",
        Verb::Logits(_) => "logits",
        Verb::Perplexity(_) => "perplexity",
    };
    Err(Error::Usage(format!("`{name}` is not built yet")))
}

/// Reports a failure on one line. A closed pipe is no failure: `pipo-wgpu run | head` is meant
/// to end quietly; neither needs Ctrl-C words.
fn exit_code(result: Result<()>, report: &mut dyn Write) -> ExitCode {
    match result {
        Ok(()) | Err(Error::ClosedPipe) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => ExitCode::from(os::INTERRUPTED_EXIT_CODE),
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
