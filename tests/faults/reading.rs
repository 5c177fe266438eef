//! A packed model that cannot be read, or not whole: an error that names it or the right text, never
//! anything else, and the next run works.

use std::path::Path;
use std::sync::Arc;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::engine::{Class, Engine, Options, Pass, PassToken, Weights};
use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::model::{self, Decoder};
use pipo_wgpu::pack::{self, Packed, Watch};
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Home, Plan};
use pipo_wgpu::quant::WeightKind;

use super::{Door, Fault, PATIENCE, sample, within};
use crate::common::{Model, fixture, gpu};
use crate::streaming::{options, plan_with};

/// How units are at home and travel.
#[derive(Clone, Copy, Debug)]
struct Setup {
    route: Route,
    home: fn(usize) -> Home,
    /// Slots that are read ahead into.
    ahead: u64,
}

const MIXED: fn(usize) -> Home = |unit| [Home::Disk, Home::Vram, Home::Host][unit % 3];

fn setups() -> Vec<Setup> {
    let open = Route::ALL.into_iter().filter(|route| route.is_open(gpu()));
    let with = |route| {
        let from_disk = |ahead| Setup { route, home: |_| Home::Disk, ahead };
        [from_disk(2), from_disk(0), Setup { route, home: MIXED, ahead: 1 }]
    };
    open.flat_map(with).collect()
}

/// The description that belongs to a packed file, and a plan for it.
struct Prepared {
    model: Model,
    decoder: Decoder,
    plan: Plan,
    options: Options,
}

impl Prepared {
    fn new(name: &str, setup: &Setup) -> Prepared {
        let model = Model::new(&fixture(name), WeightKind::W4);
        let options = options(setup.route);
        let mut plan = plan_with(&model, &options, 2, setup.home);
        plan.read_ahead_bytes = setup.ahead * plan.slot_bytes;
        Prepared { decoder: model.decoder.clone(), model, plan, options }
    }

    fn path(&self) -> std::path::PathBuf {
        self.model.packed.path().to_path_buf()
    }

    /// Opens the file, compares it with its checksums, loads, reads a prompt and says what follows.
    fn run(&self) -> impl FnOnce() -> Result<Vec<u32>> + Send + use<> {
        let (path, decoder) = (self.path(), self.decoder.clone());
        let (plan, options) = (self.plan.clone(), self.options.clone());
        move || {
            let packed = Packed::open(&path)?;
            packed.verify_all(Watch::NONE)?;
            let weights = Weights::new(Arc::new(packed), &decoder)?;
            let mut engine = Engine::load(gpu(), decoder, &weights, plan, &options, |_| {})?;
            say(&mut engine, 3)
        }
    }
}

/// The likeliest continuation of a short prompt.
fn say(engine: &mut Engine, count: u32) -> Result<Vec<u32>> {
    let mut said = Vec::new();
    let token = |position, id| PassToken { id, position, cache_start: 0 };
    let prompt: Vec<_> = (0..4).map(|i| token(i, 7 + 13 * i)).collect();
    engine.forward(&Pass { tokens: &prompt, selected: &[3], class: Class::Prefill })?;
    let mut next = engine.most_likely()?[0];
    for position in 4..4 + count {
        said.push(next);
        let tokens = [token(position, next)];
        engine.forward(&Pass { tokens: &tokens, selected: &[0], class: Class::Decode })?;
        next = engine.most_likely()?[0];
    }
    said.push(next);
    Ok(said)
}

/// Lets each of a run's points go wrong in each way, or a sample of them.
fn try_points(name: &str, setup: &Setup, most: Option<u64>) -> usize {
    let prepared = Prepared::new(name, setup);
    let path = prepared.path();
    let folder = path.parent().unwrap();
    let door = Door::new(folder, None);
    let right = within(PATIENCE, prepared.run()).expect("hangs without a fault").unwrap();
    let count = door.count();
    assert!(count > 5, "{setup:?}: {:?}", door.seen.lock().unwrap());
    // The long form takes long enough for somebody to wait.
    eprintln!("{name}, {setup:?}: {count} points");
    drop(door);
    let mut cases = 0;
    for fault in [Fault::Broken, Fault::Ends, Fault::Panics, Fault::Slow] {
        // What is slow is slow at every point behind; a few beginnings say it all.
        let most = if fault == Fault::Slow { Some(2) } else { most };
        for number in sample(count, most) {
            let door = Door::new(folder, Some((number, fault)));
            let case = format!("{name}, {setup:?}, {fault:?} from point {number} of {count} on");
            let outcome = within(PATIENCE, prepared.run()).unwrap_or_else(|| panic!("{case}: hangs"));
            drop(door);
            match outcome {
                // The last points are reads ahead for a pass that never comes.
                Ok(said) => assert_eq!(said, right, "{case}"),
                Err(Error::Gpu(problem)) if fault == Fault::Panics => {
                    assert!(problem.contains("panicked"), "{case}: {problem}");
                }
                Err(error) => {
                    assert_ne!(fault, Fault::Slow, "{case}: {error}");
                    let words = error.to_string();
                    let ends = fault == Fault::Ends && words.contains("cut short");
                    let is_clear = ends || words.contains("the drive is broken");
                    assert!(words.contains(&path.display().to_string()) && is_clear, "{case}: {words}");
                }
            }
            cases += 1;
        }
    }
    assert_eq!(within(PATIENCE, prepared.run()).unwrap().unwrap(), right, "the next run works");
    cases
}

#[test]
fn a_read_that_fails_is_named_and_the_next_run_works() {
    let setups = setups();
    // Of all, by another route with other homes.
    for (number, setup) in setups.iter().step_by(5).take(2).enumerate() {
        assert!(try_points(["llama_mha", "opt"][number], setup, Some(3)) > 10);
    }
}

#[test]
#[ignore = "every point of every route, which takes minutes"]
fn every_read_that_fails_is_named() {
    // Other models read in other places, but by the same routes.
    let setups = setups();
    let others = setups.iter().step_by(5).take(2).flat_map(|setup| [("opt", setup), ("moe_mixtral", setup)]);
    let all = setups.iter().map(|setup| ("llama_mha", setup)).chain(others);
    let cases: usize = all.map(|(name, setup)| try_points(name, setup, None)).sum();
    eprintln!("{cases} cases");
}

/// The file is really cut while an engine uses it, to nothing or in the middle of any unit: an error,
/// where a map of the file would have ended the process.
#[test]
fn a_file_that_is_cut_anywhere_while_it_is_used_is_named() {
    let setup = Setup { route: Route::Staged, home: |_| Home::Disk, ahead: 1 };
    let prepared = Prepared::new("llama_mha", &setup);
    let bytes = std::fs::read(prepared.path()).unwrap();
    let units = prepared.model.packed.units();
    let middle = |unit: usize| (units[unit].bytes.start + units[unit].bytes.end) / 2;
    let last = bytes.len() as u64 - 1;
    for length in [0, 100, middle(0), middle(1), middle(units.len() - 1), last] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let packed = Arc::new(Packed::open(&path).unwrap());
        let weights = Weights::new(Arc::clone(&packed), &prepared.decoder).unwrap();
        let (plan, options) = (prepared.plan.clone(), &prepared.options);
        let mut engine =
            Engine::load(gpu(), prepared.decoder.clone(), &weights, plan, options, |_| {}).unwrap();
        say(&mut engine, 1).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let error = (0..3).find_map(|_| say(&mut engine, 3).err()).expect("it is gone").to_string();
        let name = path.display().to_string();
        assert!(error.contains(&name) && error.contains("cut short"), "{length}: {error}");
        // Nor is it touched by who only looks.
        assert!(packed.verify_all(Watch::NONE).is_err() && packed.file("config.json").is_none());
    }
}

/// Who replaces a file by another, as `pack` does, leaves the old one to those who have it open.
#[test]
fn a_file_that_is_replaced_while_it_is_used_stays_what_it_was() {
    let setup = Setup { route: Route::Staged, home: |_| Home::Disk, ahead: 0 };
    let prepared = Prepared::new("llama_mha", &setup);
    let right = within(PATIENCE, prepared.run()).unwrap().unwrap();
    let weights = Weights::new(Arc::clone(&prepared.model.packed), &prepared.decoder).unwrap();
    let (plan, options) = (prepared.plan.clone(), &prepared.options);
    let mut engine = Engine::load(gpu(), prepared.decoder.clone(), &weights, plan, options, |_| {}).unwrap();
    let other = prepared.path().with_file_name("other");
    std::fs::write(&other, vec![0; 5000]).unwrap();
    std::fs::rename(&other, prepared.path()).unwrap();
    assert_eq!(say(&mut engine, 3).unwrap(), right);
    assert!(Packed::open(prepared.path()).is_err());
}

/// Does something to a file with this content, at a point of this number.
type Spoil = fn(&Path, &[u8], u64);

/// A checkpoint whose file is spoilt between two reads of it; how often that was noticed.
fn spoil_while_packing(
    folder: &Path,
    file: &Path,
    kind: WeightKind,
    (most, spoil): (Option<u64>, Spoil),
) -> usize {
    use pipo_wgpu::os::faults::{Hook, Operation, watch};
    use std::sync::atomic::{AtomicU64, Ordering};
    let whole = std::fs::read(file).unwrap();
    let dst = folder.join("packed/model");
    let pack = |folder: &Path| -> Result<()> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.read_json("config.json")?.unwrap_or_default();
        let mut decoder = model::describe(folder, &config, kind)?;
        let kinds = model::Kinds::of(&checkpoint, &decoder)?;
        decoder.adapt(&kinds)?;
        pack::write(&dst, &decoder.packed_units(), &checkpoint, &[], Watch::NONE)
    };
    let source = if file.extension().is_some_and(|e| e == "gguf") { file } else { folder };
    let door = Door::new(folder, None);
    pack(source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let count = door.count();
    drop(door);
    let right = std::fs::read(&dst).unwrap();
    let mut noticed = 0;
    for number in sample(count, most) {
        let passed = AtomicU64::new(0);
        let (path, bytes) = (file.to_path_buf(), whole.clone());
        // As old as a file is that was not made a moment ago.
        let modified = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
        let hook: Hook = Arc::new(move |point| {
            if passed.fetch_add(1, Ordering::SeqCst) == number && point.operation != Operation::Rename {
                spoil(&path, &bytes, number);
            }
            Ok(())
        });
        let _ = std::fs::remove_dir_all(dst.parent().unwrap());
        let watching = watch(folder, hook);
        let outcome = pack(source);
        drop(watching);
        match outcome {
            // All of it had been read before.
            Ok(()) => assert!(std::fs::read(&dst).unwrap() == right, "{} {number}", file.display()),
            Err(error) => {
                noticed += 1;
                let words = error.to_string();
                assert!(words.contains(&folder.display().to_string()), "{number} of {count}: {words}");
                assert!(!dst.exists());
                assert!(
                    !dst.parent().unwrap().exists() || super::left_overs(dst.parent().unwrap()).is_empty()
                );
            }
        }
        std::fs::write(file, &whole).unwrap();
    }
    pack(source).unwrap();
    assert!(std::fs::read(&dst).unwrap() == right, "the next run works");
    noticed
}

/// Checkpoints of all forms: rows, columns, codes in words, 8-bit floats, blocks.
const FORMS: [(&str, WeightKind); 7] = [
    ("llama_mha", WeightKind::W4),
    ("families/gpt2", WeightKind::F16),
    ("quantised/gptq_asym", WeightKind::W4),
    ("quantised/awq", WeightKind::W4),
    ("quantised/fp8_block", WeightKind::W8),
    ("moe_gpt_oss_mxfp4", WeightKind::W4),
    ("quantised/mixed.gguf", WeightKind::W4),
];

/// Cuts a file, to nothing or in the middle.
fn cut(path: &Path, whole: &[u8], number: u64) {
    let length = whole.len() as u64 * (number % 3) / 3;
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Writes a file once more, as far as can be seen with something else.
fn write_over(path: &Path, whole: &[u8], _: u64) {
    use std::io::Write;
    std::fs::File::options().write(true).open(path).unwrap().write_all(whole).unwrap();
}

fn spoil_each(most: Option<u64>, spoil: Spoil) {
    for (name, kind) in FORMS {
        let path = fixture(name);
        let (folder, file) = if path.is_dir() {
            (super::copy_of(&path), "model.safetensors")
        } else {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(&path, folder.path().join("model.gguf")).unwrap();
            (folder, "model.gguf")
        };
        let noticed = spoil_while_packing(folder.path(), &folder.path().join(file), kind, (most, spoil));
        assert!(noticed > 0, "{name}");
    }
}

/// Half of one model and half of another would be neither.
#[test]
fn a_checkpoint_that_is_written_over_while_it_is_packed_is_named() {
    spoil_each(Some(6), write_over);
}

#[test]
fn a_checkpoint_that_is_cut_while_it_is_packed_is_named() {
    spoil_each(Some(6), cut);
}

#[test]
#[ignore = "every point, which takes a minute"]
fn a_checkpoint_that_is_cut_at_any_time_is_named() {
    spoil_each(None, cut);
    spoil_each(None, write_over);
}
