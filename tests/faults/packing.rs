//! Reads and writes of packing that fail: nothing is left behind, an older file stays, the next run works.

use std::fs;
use std::path::Path;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::error::Result;
use pipo_wgpu::model;
use pipo_wgpu::os;
use pipo_wgpu::pack::{self, Packed, Watch};
use pipo_wgpu::quant::WeightKind;

use super::{Door, Fault, copy_of, left_overs, sample};
use crate::common::fixture;

fn pack(folder: &Path, dst: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    let config = checkpoint.read_json("config.json")?.unwrap_or_default();
    let decoder = model::describe(&folder.join("config.json"), &config, WeightKind::W4)?;
    let config = config.to_string().into_bytes();
    pack::write(dst, &decoder.packed_units(), &checkpoint, &[("config.json".into(), config)], Watch::NONE)
}

#[test]
fn every_step_of_packing_may_fail() {
    let folder = copy_of(&fixture("llama_mha"));
    let out = folder.path().join("out");
    let dst = out.join("packed");
    let door = Door::new(folder.path(), None);
    pack(folder.path(), &dst).unwrap();
    let count = door.count();
    let seen = door.seen.lock().unwrap().clone();
    drop(door);
    for step in ["Open", "Read", "Make", "Write", "Sync", "Rename"] {
        assert!(seen.iter().any(|point| point.starts_with(step)), "no {step} in {seen:?}");
    }
    let right = fs::read(&dst).unwrap();
    for fault in [Fault::Broken, Fault::Ends, Fault::Full] {
        for (case, number) in sample(count, None).into_iter().enumerate() {
            // An older file, or none.
            match case % 2 {
                0 => fs::write(&dst, b"older").unwrap(),
                _ => drop(fs::remove_file(&dst)),
            }
            let door = Door::new(folder.path(), Some((number, fault)));
            let error = pack(folder.path(), &dst).unwrap_err().to_string();
            drop(door);
            let point = &seen[number as usize];
            assert!(error.contains(&folder.path().display().to_string()), "{point}: {error}");
            if fault == Fault::Full && point.starts_with("Write") {
                assert!(error.contains("the disk is full") && error.contains("more than fitted"), "{error}");
            }
            assert!(left_overs(&out).is_empty(), "{point}");
            match case % 2 {
                0 => assert!(fs::read(&dst).unwrap() == b"older", "{point}: the older file is gone"),
                _ => assert!(!dst.exists(), "{point}: half a file"),
            }
        }
    }
    pack(folder.path(), &dst).unwrap();
    assert!(fs::read(&dst).unwrap() == right);
    Packed::open(&dst).unwrap().verify_all(Watch::NONE).unwrap();
}

/// What a process that was killed has left is removed by the next who writes there, and what another
/// writes at the moment is not.
#[test]
fn left_overs_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join(".pipo-wgpu-dead.partial");
    fs::write(&dead, b"half").unwrap();
    let others = folder.path().join("mine.partial");
    fs::write(&others, b"mine").unwrap();
    let living = os::temporary_in(folder.path()).unwrap();
    assert!(!dead.exists() && others.exists() && living.path().exists());
    let second = os::temporary_in(folder.path()).unwrap();
    assert!(living.path().exists() && second.path().exists());
    let (path, done) = (living.path().to_path_buf(), folder.path().join("done"));
    living.persist(&done).unwrap();
    assert!(!path.exists() && done.exists());
    drop(second);
    assert_eq!(left_overs(folder.path()), [others]);
}

/// Many at once in one folder take nothing from each other.
#[test]
fn many_may_write_into_one_folder_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = folder.path();
            scope.spawn(move || {
                for number in 0..50 {
                    let file = os::temporary_in(folder).unwrap();
                    fs::write(file.path(), format!("{writer} {number}")).unwrap();
                    file.persist(folder.join(format!("{writer}-{number}"))).unwrap();
                }
            });
        }
    });
    for (writer, number) in (0..4).flat_map(|writer| (0..50).map(move |number| (writer, number))) {
        let text = fs::read_to_string(folder.path().join(format!("{writer}-{number}"))).unwrap();
        assert_eq!(text, format!("{writer} {number}"));
    }
    assert!(left_overs(folder.path()).is_empty());
}
