//! Completions for shells, and manual pages: both made from the options themselves.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::args::Args;
use crate::cli::output::{Output, note};
use crate::error::{Error, Result};

/// Writes a script that completes commands.
///
/// # Errors
/// When the output is closed.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "pipo-wgpu", &mut script);
    Output::stdout().piece(&String::from_utf8_lossy(&script))
}

/// Writes the manual page, or all of them into a folder.
///
/// # Errors
/// When the output is closed, or the folder cannot be written to.
pub fn pages(folder: Option<&Path>) -> Result<()> {
    let mut program = Args::command();
    program.build();
    let Some(folder) = folder else { return Output::stdout().piece(&page(&program)) };
    fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    let verbs = program.get_subcommands().filter(|verb| verb.get_name() != "help").cloned();
    let mut count = 0;
    for command in [program.clone()].into_iter().chain(verbs) {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(&command)).map_err(Error::io("write", &path))?;
        count += 1;
    }
    note(format_args!("{count} pages in {}", folder.display()));
    Ok(())
}

fn page(command: &Command) -> String {
    let mut page = Vec::new();
    // A vector takes everything.
    let _ = Man::new(command.clone()).render(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}
