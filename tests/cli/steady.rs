//! Long runs take no more memory at their end than soon after their start, and no budget changes a text.

use std::fs;
use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use super::{Place, driver_mib, vram};
use crate::common::gpu;

/// Resident bytes of a process.
#[cfg(target_os = "linux")]
fn resident_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// What a process may grow by after its first quarter: tables of the C library, and a page here and there.
#[cfg(target_os = "linux")]
const GROWTH_BYTES: u64 = 6 << 20;

/// Runs a line to its end and looks at its memory; the most in the second quarter of its time and in the
/// last. It counts from the first byte of its output, or from when the model is loaded if it has none before
/// its end.
#[cfg(target_os = "linux")]
fn memory_of(place: &Place, line: &str, streams: bool) -> (u64, u64, String) {
    let mut child = place.command(line).spawn().unwrap();
    let (mut output, remarks) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (tell, loaded) = std::sync::mpsc::channel();
    // Who reads nothing would stop the writer.
    let remarks = std::thread::spawn(move || {
        let mut all = String::new();
        for remark in std::io::BufReader::new(remarks).lines().map(Result::unwrap) {
            if remark.starts_with("loaded in") {
                // Nobody waits where the text has begun.
                let _ = tell.send(());
            }
            all += &(remark + "\n");
        }
        all
    });
    if streams {
        output.read_exact(&mut [0]).unwrap();
    } else {
        loaded.recv().expect("it says that the model is loaded");
    }
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let mut samples = Vec::new();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(600), "{line}: hangs");
        samples.extend(resident_bytes(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let (remarks, text) = (remarks.join().unwrap(), reader.join().unwrap().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(0), "{line}: {remarks}");
    let quarter = samples.len() / 4;
    assert!(quarter > 10, "{line}: only {} looks", samples.len());
    let most = |range: &[u64]| range.iter().copied().max().unwrap_or(0);
    // The last look may be at a process that gives all back.
    (most(&samples[quarter..2 * quarter]), most(&samples[3 * quarter..]), remarks + &text)
}

#[cfg(target_os = "linux")]
fn stays_flat(place: &Place, line: &str, streams: bool) {
    let (early, late, said) = memory_of(place, line, streams);
    assert!(late <= early + GROWTH_BYTES, "{line}: from {early} to {late} bytes\n{said}");
}

/// A text for `perplexity`, of about so many tokens.
fn long_text(place: &Place, words: usize) {
    let text: Vec<_> = (0..words).map(|i| ["Once", "upon", "a", "time", "there", "was"][i * 7 % 6]).collect();
    place.write("text.txt", text.join(" "));
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_text_takes_no_more_memory() {
    let place = Place::new();
    let line = "run -p Once -n 200 --ignore-eos --seed 1 --route staged";
    stays_flat(&place, &format!("{line} {}", vram(6)), true);
    // Where a pass takes no time, for as long.
    long_text(&place, if gpu().facts.is_software() { 300 } else { 30_000 });
    stays_flat(&place, &format!("perplexity text.txt --context 64 {}", vram(8)), false);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "minutes"]
fn very_long_texts_take_no_more_memory() {
    let place = Place::new();
    let (six, eight) = (vram(6), vram(8));
    for more in [&format!("{six} --route staged"), &six, "", "--cache-home host", "--batch 8"] {
        let line = format!("run -p Once -n 1000 --ignore-eos --seed 1 --context 1024 {more}");
        stays_flat(&place, &line, true);
    }
    for (more, words) in [
        (&*format!("{eight} --context 64"), 20_000),
        ("--context 512", 6000),
        ("--context 100 --stride 10", 1000),
    ] {
        long_text(&place, words);
        stays_flat(&place, &format!("perplexity text.txt {more}"), false);
    }
}

/// What `--vram` allows is what is taken at most, by the program's own books.
#[test]
fn budgets_change_no_text_and_are_kept() {
    let place = Place::new();
    let line = "run -p Once -n 24 --ignore-eos --temperature 0.8 --top-k 40 --seed 5 --context 200";
    let right = place.output(line);
    assert!(right.len() > 40, "{right}");
    for (mib, more) in
        [(6, "--route staged"), (6, "--route staged --depth 1"), (7, ""), (8, "--cache-home host --ram 3MiB")]
    {
        let line = format!("{line} {} {more}", vram(mib));
        let outcome = place.run(&line).succeeded(&line);
        assert_eq!(outcome.stdout, right, "{line}");
        let (_, most) = outcome.stderr.rsplit_once("GPU memory ").unwrap();
        let most: f64 = most.split(" MiB at most").next().unwrap().parse().unwrap();
        // What a driver takes for itself differs from run to run; it is not in this count.
        let all = (mib + driver_mib()) as f64;
        assert!(most <= all && most > mib as f64 / 2.0, "{line}: {most}");
    }
}
