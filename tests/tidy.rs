//! What must hold for the source as text: imports, sizes, first sentences, names of things.

use std::fs;
use std::path::Path;

use clap::{CommandFactory, Parser};
use pipo_wgpu::cli::args::Args;

/// The modules bottom up, each with what it may import; `wgpu` and `ash` are crates.
const MODULES: [(&str, &[&str]); 23] = [
    // What cargo runs before it builds the rest.
    ("build", &[]),
    ("error", &[]),
    ("size", &["error"]),
    ("os", &["error"]),
    ("trace", &["error", "os"]),
    ("quant", &["error"]),
    ("plan", &["error", "size"]),
    ("sampler", &["error"]),
    ("text", &["error"]),
    ("hub", &["error", "os"]),
    ("checkpoint", &["error", "os", "quant"]),
    ("pack", &["error", "size", "os", "quant", "checkpoint"]),
    ("gpu", &["error", "os", "wgpu", "ash"]),
    ("kernels", &["error", "quant", "gpu", "wgpu"]),
    ("pipeline", &["error", "os", "trace", "gpu", "wgpu"]),
    ("model", &["error", "quant", "checkpoint", "pack"]),
    (
        "engine",
        &["error", "os", "trace", "quant", "plan", "pack", "gpu", "kernels", "pipeline", "model", "wgpu"],
    ),
    ("session", &["error", "os", "sampler", "text", "engine"]),
    ("serve", &["error", "trace", "plan", "sampler", "text", "engine", "session"]),
    (
        "cli",
        &[
            "error",
            "size",
            "os",
            "trace",
            "quant",
            "plan",
            "sampler",
            "text",
            "hub",
            "checkpoint",
            "pack",
            "gpu",
            "pipeline",
            "model",
            "engine",
            "session",
            "serve",
        ],
    ),
    // The verb that shows what wgpu reports.
    ("cli/devices", &["error", "size", "gpu", "cli", "wgpu"]),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// The only files with code that the compiler cannot check.
const UNSAFE_FILES: [&str; 6] = [
    "src/gpu/pipeline_cache.rs",
    "src/gpu/trusted.rs",
    "src/gpu/vulkan.rs",
    "src/gpu/vulkan/memory.rs",
    "src/os/file.rs",
    "src/os/memory.rs",
];
/// The only files that know Vulkan itself.
const ASH_FILES: [&str; 3] = ["src/gpu/vulkan.rs", "src/gpu/vulkan/memory.rs", "src/gpu/families.rs"];

const RUST_LINES_MAX: usize = 450;
const SHADER_LINES_MAX: usize = 250;
const COLUMNS_MAX: usize = 120;

/// A text file of the repository.
struct Source {
    /// With `/` on every system, e.g. `src/os/file.rs`.
    path: String,
    text: String,
}

/// Finds what is wrong with one file, as lines for people.
type Check = fn(&Source) -> Vec<String>;

/// The repository's text files under a folder, or beside the manifest for `""`.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            // What tools leave beside the sources.
            if [".git", "target", "corpus", "artifacts", "coverage"].contains(&name.as_str()) {
                continue;
            }
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                folders.extend(Some(path).filter(|_| !folder.is_empty()));
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                // What is no text is a weight file.
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn with_extension(folder: &str, extension: &str) -> Vec<Source> {
    let mut found = sources(folder);
    found.retain(|source| Path::new(&source.path).extension().is_some_and(|e| e == extension));
    assert!(!found.is_empty(), "no {extension} files in {folder}");
    found
}

/// Runs a check over files, and over a snippet that it must complain about.
fn hold(check: Check, sources: &[Source], bad: &[(&str, &str)]) {
    for (path, text) in bad {
        let source = Source { path: (*path).to_owned(), text: (*text).to_owned() };
        assert!(!check(&source).is_empty(), "the check cannot fail: {path}: {text}");
    }
    let problems: Vec<_> = sources.iter().flat_map(check).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// A line's code without its comment; good enough as no string here holds `//` before code.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The names after each occurrence of a path's `start`, such as `crate::`, outside comments.
fn names_after(text: &str, start: &str) -> Vec<String> {
    let code: String = text.lines().flat_map(|line| [code(line), "\n"]).collect();
    let mut names = Vec::new();
    for (at, _) in code.match_indices(start) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => names.push(identifier(rest)),
        }
    }
    names
}

/// The first identifiers of a `use` group's members: `a::{b, c}, d}` gives `a` and `d`.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => fresh = depth == 1,
            c if fresh && c.is_alphabetic() => {
                names.push(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The table's entry for a file: the longest that fits.
fn module_of(path: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let path = path.strip_prefix("src/")?;
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let fits =
        |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    MODULES.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len())
}

/// Imports from modules or crates that the table does not allow.
fn imports(source: &Source) -> Vec<String> {
    let Some((module, allowed)) = module_of(&source.path) else {
        return vec![format!("{}: add its module to the table of imports", source.path)];
    };
    let known = |name: &String| MODULES.iter().any(|(module, _)| module == name);
    let mut found = names_after(&source.text, "crate::");
    found.extend(names_after(&source.text, "pipo_wgpu::"));
    let is_top = source.path.matches('/').count() == 1 || source.path.ends_with("/mod.rs");
    if is_top {
        // From here, `super` is the crate, but inside the file's own modules it is the file.
        found.extend(names_after(&source.text, "super::").into_iter().filter(known));
    }
    for name in ["wgpu", "ash"] {
        let used = names_after(&source.text, &format!("{name}::"));
        found.extend(used.first().map(|_| name.to_owned()));
    }
    found.sort();
    found.dedup();
    let own = module.split('/').next().unwrap_or(module);
    let foreign = found.into_iter().filter(|name| name != own && !allowed.contains(&name.as_str()));
    foreign.map(|name| format!("{}: `{module}` may not import `{name}`", source.path)).collect()
}

#[test]
fn imports_go_down_only() {
    for (number, (module, allowed)) in MODULES.iter().enumerate() {
        let below = |name: &str| MODULES[..number].iter().any(|(module, _)| *module == name);
        let wrong = allowed.iter().find(|name| !below(name) && !["wgpu", "ash"].contains(name));
        assert_eq!(wrong, None, "the table lets `{module}` import what is not below it");
    }
    let bad = [
        ("src/plan.rs", "use crate::gpu::Gpu;"),
        ("src/plan.rs", "use super::gpu::Gpu;"),
        ("src/text/stop.rs", "use crate::{\n    error::{Error, Result},\n    sampler,\n};"),
        ("src/gpu/mod.rs", "fn f() { crate::pipeline::ring::f(); }"),
        ("src/model/llama.rs", "fn f(device: &wgpu::Device) {}"),
        ("src/cli/open.rs", "use wgpu::Features;"),
        ("src/cli/open.rs", "use crate::kernels;"),
        ("src/pipeline/ring.rs", "use ash::vk;"),
        ("src/main.rs", "use pipo_wgpu::engine;"),
        ("src/novel/mod.rs", ""),
    ];
    hold(imports, &with_extension("src", "rs"), &bad);
}

/// Code for which its few files exist.
fn confined(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let line = code(line);
        let words = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for (word, files) in [("unsafe", &UNSAFE_FILES[..]), ("ash", &ASH_FILES)] {
            let here = words().any(|found| found == word);
            if here && !files.contains(&source.path.as_str()) {
                problems.push(format!("{}:{}: `{word}` belongs into {files:?}", source.path, number + 1));
            }
        }
    }
    problems
}

#[test]
fn unsafe_code_has_its_few_files() {
    let bad = [
        ("src/gpu/buffer.rs", "let x = unsafe { *p };"),
        ("src/engine/mod.rs", "unsafe impl Send for X {}"),
        ("src/gpu/mod.rs", "use ash::vk;"),
    ];
    hold(confined, &with_extension("src", "rs"), &bad);
}

/// Files longer or wider than a person reads with pleasure.
fn size(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let most = if source.path.ends_with(".wgsl") { SHADER_LINES_MAX } else { RUST_LINES_MAX };
    let mut problems = Vec::new();
    if lines > most {
        problems.push(format!("{}: {lines} lines, {most} are enough for one job", source.path));
    }
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        // A table's row cannot be broken.
        let is_table_row = line.trim_start().trim_start_matches(['/', '!']).starts_with(" | ");
        if columns > COLUMNS_MAX && !is_table_row {
            problems.push(format!("{}:{}: {columns} columns, {COLUMNS_MAX} fit", source.path, number + 1));
        }
    }
    problems
}

#[test]
fn files_are_short_and_narrow() {
    let (long, wide) = ("\n".repeat(RUST_LINES_MAX + 1), "x".repeat(COLUMNS_MAX + 1));
    let bad = [("src/a.rs", long.as_str()), ("shaders/a.wgsl", &long), ("src/a.rs", &wide)];
    let mut all = with_extension("src", "rs");
    all.extend(with_extension("tests", "rs"));
    all.extend(with_extension("shaders", "wgsl"));
    hold(size, &all, &bad);
}

/// A file that does not begin with a sentence about its purpose.
fn purpose(source: &Source) -> Vec<String> {
    let mark = if source.path.ends_with(".wgsl") { "// " } else { "//! " };
    let paragraph: Vec<_> = source.text.lines().map_while(|line| line.strip_prefix(mark)).collect();
    let sentence = paragraph.join(" ");
    // A shader's sentence may be followed by more about its layout.
    let ends = sentence.ends_with(['.', ':']) || sentence.contains(". ");
    let begins = sentence.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == '`');
    match begins && ends {
        true => Vec::new(),
        false => vec![format!("{}: does not begin with a sentence of purpose after `{mark}`", source.path)],
    }
}

#[test]
fn every_file_begins_with_its_purpose() {
    let bad = [
        ("src/a.rs", "use std::fs;"),
        ("src/a.rs", "// Reads.\n"),
        ("src/a.rs", "//! reads things"),
        ("src/a.rs", "//!\n//! Reads."),
        ("shaders/a.wgsl", "@group(0)"),
    ];
    let mut all = with_extension("src", "rs");
    all.extend(with_extension("tests", "rs"));
    all.extend(with_extension("shaders", "wgsl"));
    hold(purpose, &all, &bad);
}

/// Places on one machine, and promises instead of work.
fn leftovers(source: &Source) -> Vec<String> {
    // Put together so that this file does not contain them.
    let folders = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let marks = [["TO", "DO"], ["FIX", "ME"]].map(|[a, b]| format!("{a}{b}"));
    let mut problems = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let is_path = |folder: &String| {
            let line = format!("{line}/");
            line.match_indices(folder.as_str())
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}~".contains(c)))
        };
        if folders.iter().any(is_path) || marks.iter().any(|mark| line.contains(mark)) {
            problems.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
        }
    }
    problems
}

#[test]
fn nothing_names_one_machine_or_puts_work_off() {
    let mark = format!("// {}: later", ["TO", "DO"].concat());
    let path = format!("see {}/shared", "/wo".to_owned() + "rk");
    let end = format!("cd {}", "/ro".to_owned() + "ot");
    let bad = [("src/a.rs", mark.as_str()), ("README.md", &path), ("Makefile", &end)];
    let mut all = sources("");
    for folder in ["src", "tests", "shaders", "assets", "benches", "docs", ".ci", ".github"] {
        all.extend(sources(folder));
    }
    assert!(all.iter().any(|source| source.path == "Cargo.toml"));
    hold(leftovers, &all, &bad);
}

/// The commands of a document: lines of its fenced or indented blocks, and code in its lines.
fn commands<'a>(source: &'a Source, program: &str) -> Vec<&'a str> {
    let is_command = |text: &&str| text.split_whitespace().next() == Some(program);
    let document = source.path.ends_with(".md");
    let mut found = Vec::new();
    for line in source.text.lines() {
        let line = line.trim().trim_start_matches("$ ").trim_start_matches("step ");
        found.extend(Some(line).filter(is_command).filter(|_| !document || !line.ends_with('.')));
        found.extend(line.split('`').skip(1).step_by(2).filter(is_command));
    }
    found
}

/// Makefile targets that are named but not there.
fn targets(source: &Source) -> Vec<String> {
    let makefile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).unwrap();
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let targets = commands(source, "make").into_iter().flat_map(|command| {
        let words =
            command.split_whitespace().skip(1).take_while(|word| !word.starts_with(['#', '&', '|', ';']));
        words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    });
    let missing = targets.filter(|target| !exists(target));
    missing.map(|target| format!("{}: `make {target}` does not exist", source.path)).collect()
}

#[test]
fn every_make_target_that_is_named_exists() {
    let bad = [
        ("README.md", "Try `make coffee`."),
        ("README.md", "```sh\nmake run coffee\n```"),
        (".ci/run", "step make coffee"),
    ];
    let mut all = sources("");
    all.retain(|source| source.path.ends_with(".md"));
    all.extend(sources(".ci"));
    assert!(all.iter().any(|source| !commands(source, "make").is_empty()));
    hold(targets, &all, &bad);
}

/// Commands of the program that it would not understand.
fn usage(source: &Source) -> Vec<String> {
    let wrong = commands(source, "pipo-wgpu").into_iter().filter_map(|command| {
        let command = command.split(" #").next().unwrap_or(command).split("   ").next().unwrap_or(command);
        let words = words(command.split(['|', '<', '>', '&']).next().unwrap_or(command));
        Args::try_parse_from(words).err().filter(clap::Error::use_stderr).map(|error| (command, error))
    });
    wrong.map(|(command, error)| format!("{}: `{command}`: {error}", source.path)).collect()
}

/// The files that read the clock on the wall, which jumps: for dates of answers, never to wait by.
const DATING_FILES: [&str; 2] = ["src/cli/serve.rs", "src/serve/api/objects.rs"];

/// Who reads that clock and should not, or blocks in the driver, where wgpu may panic.
fn dated(source: &Source) -> Vec<String> {
    let waits = ["SystemTime::now", "UNIX_EPOCH.elapsed", "PollType::Wait", "PollType::wait"];
    let lines = source.text.lines().filter(|line| waits.iter().any(|wait| line.contains(wait)));
    let found = lines.filter(|_| !DATING_FILES.contains(&&*source.path));
    found.map(|line| format!("{}: {} waits as nothing should", source.path, line.trim())).collect()
}

#[test]
fn nothing_waits_by_a_clock_that_jumps() {
    let bad = [("src/a.rs", "SystemTime::now()"), ("src/a.rs", "PollType::wait_indefinitely()")];
    hold(dated, &with_extension("src", "rs"), &bad);
}

/// Splits a command at white space outside quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in command.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let bad = [
        ("README.md", "```sh\n$ pipo-wgpu run --vrma 1GiB\n```"),
        ("README.md", "Say `pipo-wgpu walk` to it."),
        ("README.md", "pipo-wgpu run -p 'a b' c d"),
    ];
    let mut all = sources("");
    all.retain(|source| source.path.ends_with(".md"));
    let mut program = Args::command();
    let help = |verb: &mut clap::Command| Source {
        path: format!("the help of {}", verb.get_name()),
        text: verb.render_help().to_string(),
    };
    all.push(help(&mut program));
    all.extend(program.get_subcommands_mut().map(help));
    assert!(all.iter().any(|source| commands(source, "pipo-wgpu").len() > 2));
    hold(usage, &all, &bad);
}
