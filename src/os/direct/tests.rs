//! Direct reads give a file's bytes, and a clear error for a file that is no longer whole.

use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::os::forget_cached;

/// A file of `bytes` with a pattern that no shift repeats, in `folder`.
fn file_in(folder: &Path, bytes: usize) -> (PathBuf, Vec<u8>) {
    let path = folder.join("weights");
    let content: Vec<u8> =
        (0..bytes as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn every_way_of_reading_gives_the_files_bytes() {
    // The folder of the build is on a drive; temporary folders may be in memory.
    for folder in [Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), std::env::temp_dir()] {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let (path, content) = file_in(folder.path(), 9 << 20 | 4096);
        let file = DirectFile::open(&path).unwrap();
        let mut memory = AnonymousMemory::new(content.len() as u64 + 1).unwrap();
        for cold in [false, true] {
            for (offset, length, shift) in
                [(0, content.len(), 0), (4096, 8192, 0), (4096, 5 << 20, 1), (1, 5000, 0), (8192, 0, 0)]
            {
                for target in [Target::Own, Target::Driver] {
                    if cold {
                        forget_cached(&path).unwrap();
                    }
                    let to = &mut memory.bytes_mut()[shift..shift + length];
                    to.fill(0);
                    file.read(offset as u64, to, target).unwrap();
                    assert!(to == &content[offset..offset + length], "{offset} {length} {shift} {target:?}");
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn direct_reads_leave_no_pages_in_the_cache() {
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
    let (path, content) = file_in(folder.path(), 8 << 20);
    let file = DirectFile::open(&path).unwrap();
    assert!(file.is_cached(0..8 << 20), "a file that was just written is cached");
    forget_cached(&path).unwrap();
    if file.past_cache.is_none() || is_cached(&file.map, 0..4096) {
        eprintln!("SKIPPED: {} knows no direct reads", path.display());
        return;
    }
    let mut memory = AnonymousMemory::new(8 << 20).unwrap();
    file.read(0, memory.bytes_mut(), Target::Own).unwrap();
    assert!(memory.bytes_mut() == content && !file.refused.load(Ordering::Relaxed));
    assert!((0..2048).all(|page| !is_cached(&file.map, page * 4096..(page + 1) * 4096)));
}

#[test]
fn a_file_that_changes_is_named() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("cut short", |path| {
            File::options().write(true).open(path).unwrap().set_len(4096).unwrap();
        }),
        ("longer", |path| {
            File::options().append(true).open(path).unwrap().write_all(&[0; 4096]).unwrap();
        }),
        ("rewritten", |path| {
            std::thread::sleep(Duration::from_millis(20));
            File::options().write(true).open(path).unwrap().write_all(&[1; 4096]).unwrap();
        }),
    ];
    for (how, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = file_in(folder.path(), 64 << 10);
        let file = DirectFile::open(&path).unwrap();
        let mut memory = AnonymousMemory::new(32 << 10).unwrap();
        file.read(0, memory.bytes_mut(), Target::Own).unwrap();
        change(&path);
        for target in [Target::Own, Target::Driver] {
            let problem = file.read(32 << 10, memory.bytes_mut(), target).unwrap_err().to_string();
            assert!(problem.contains("weights") && problem.contains("changed"), "{how}: {problem}");
        }
    }
    let missing = DirectFile::open(Path::new("no/such/file")).unwrap_err().to_string();
    assert!(missing.contains("no/such/file"), "{missing}");
}

#[test]
fn another_file_under_the_same_name_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = file_in(folder.path(), 64 << 10);
    let file = DirectFile::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![0; 64 << 10]).unwrap();
    let mut memory = AnonymousMemory::new(64 << 10).unwrap();
    file.read(0, memory.bytes_mut(), Target::Own).unwrap();
    assert!(memory.bytes_mut() == content);
}

#[test]
fn the_drives_rate_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = file_in(folder.path(), 3 << 20 | 77);
    let rate = disk_rate(&path).unwrap();
    assert!(rate.bytes_per_second > 1e6 && rate.bytes >= 3 << 20, "{rate:?}");
    let (path, _) = file_in(folder.path(), 100);
    let problem = disk_rate(&path).unwrap_err().to_string();
    assert!(problem.contains("too short") && problem.contains("weights"), "{problem}");
}
