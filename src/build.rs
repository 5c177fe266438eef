//! Tells the program from which commit it was built, as far as that is known.

#![allow(clippy::print_stdout, reason = "cargo listens there")]

use std::path::Path;
use std::process::Command;

/// Which commit, for `bench`, whose readers compare builds.
const COMMIT: &str = "PIPO_WGPU_COMMIT";
/// How many commits lead to it.
const NUMBER: &str = "PIPO_WGPU_COMMIT_NUMBER";

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    for name in [COMMIT, NUMBER] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let of = |name: &str, ask: &dyn Fn() -> Option<String>| std::env::var(name).ok().or_else(ask);
    // While somebody works on it, each commit would build all of it once more, for a number that
    // no measurement of such a build is worth.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let ask = |arguments: &[&str]| if is_release { git(arguments) } else { None };
    if is_release {
        for path in ["HEAD", "logs/HEAD"].iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
            // A path that is not there would build all of it every time.
            if Path::new(&path).exists() {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    let commit = of(COMMIT, &|| ask(&["rev-parse", "--short=8", "HEAD"]));
    let number = of(NUMBER, &|| ask(&["rev-list", "--count", "HEAD"]));
    println!("cargo::rustc-env={COMMIT}={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env={NUMBER}={}", number.as_deref().unwrap_or("0"));
}

/// What git answers in this package's own repository; `None` where it has none.
fn git(arguments: &[&str]) -> Option<String> {
    // An archive that is unpacked within somebody else's repository has none of its own.
    if !Path::new(".git").exists() {
        return None;
    }
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
