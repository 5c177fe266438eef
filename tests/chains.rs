//! Decode passes that follow each other without the CPU find what passes one at a time find.

use pipo_wgpu::engine::{CHAINS_MAX, Choice, Class, Engine, Ids, Options, PASSES_MAX, Pass, PassToken};
use pipo_wgpu::error::Error;
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Budget, Home, Work};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::trace::Trace;

use crate::common::{Model, fixture, gpu};
use crate::streaming::plan_with;

const CONTEXT: u32 = 48;

/// Where the embedding table of a test lies.
const TABLES: [Option<Home>; 3] = [None, Some(Home::Host), Some(Home::Vram)];

fn engine(model: &Model, batch: u32, table: Option<Home>, trace: Trace) -> Engine {
    let work = Work { batch, ..Work::default() };
    let options = Options { cache_rows: batch * CONTEXT, work, trace, ..Options::default() };
    let budget = Budget { vram_bytes: 256 << 20, threads: 1, ..Budget::default() };
    let mut plan = model.plan(&options, &budget).unwrap();
    plan.table = table;
    model.engine(plan, &options)
}

/// The places for the table that this adapter has.
fn tables() -> impl Iterator<Item = Home> {
    let pinned = gpu().has(pipo_wgpu::gpu::Place::Pinned);
    TABLES.into_iter().flatten().filter(move |home| *home == Home::Vram || pinned)
}

/// The first token of each sequence, at positions that differ.
fn first(batch: u32) -> Vec<PassToken> {
    let token = |i: u32| PassToken { id: 11 + 7 * i, position: i % 3, cache_start: i * CONTEXT };
    (0..batch).map(token).collect()
}

fn moved(tokens: &[PassToken], by: u32) -> Vec<PassToken> {
    tokens.iter().map(|token| PassToken { position: token.position + by, ..*token }).collect()
}

/// What passes one at a time choose.
fn one_by_one(engine: &mut Engine, passes: u32, first: &[PassToken]) -> Vec<Vec<u32>> {
    let mut tokens = first.to_vec();
    let selected: Vec<u32> = (0..first.len() as u32).collect();
    let mut found = Vec::new();
    for _ in 0..passes {
        engine.forward(&Pass { tokens: &tokens, selected: &selected, class: Class::Decode }).unwrap();
        let ids = engine.chosen().unwrap();
        tokens = moved(&tokens, 1);
        tokens.iter_mut().zip(&ids).for_each(|(token, id)| token.id = *id);
        found.push(ids);
    }
    found
}

/// What chains of the given lengths choose, each submitted before the one before it is read.
fn chained(engine: &mut Engine, lengths: &[u32], first: &[PassToken]) -> Vec<Vec<u32>> {
    let (mut done, mut found) = (0, Vec::new());
    let mut read = |engine: &mut Engine| {
        let ids = engine.read_chain().unwrap();
        found.extend(ids.chunks(first.len()).map(<[u32]>::to_vec));
    };
    for (number, length) in lengths.iter().enumerate() {
        let ids = if number == 0 { Ids::Given } else { Ids::Chosen };
        engine.submit_chain(&moved(first, done), ids, *length).unwrap();
        done += length;
        if number + 1 >= CHAINS_MAX {
            read(engine);
        }
    }
    (0..lengths.len().min(CHAINS_MAX - 1)).for_each(|_| read(engine));
    found
}

#[test]
fn chains_choose_what_single_passes_choose() {
    // Tied and untied tables, rotary and learned positions, a table narrower than the stream.
    for (name, kind) in [
        ("smol", WeightKind::W4),
        ("llama_bias", WeightKind::W8),
        ("llama_mha", WeightKind::F32),
        ("opt", WeightKind::W4),
        ("opt_post", WeightKind::W8),
    ] {
        let model = Model::new(&fixture(name), kind);
        for batch in [1, 3] {
            let passes = 1 + PASSES_MAX + 3;
            let mut single = engine(&model, batch, None, Trace::off());
            assert!(!single.can_chain());
            let expected = one_by_one(&mut single, passes, &first(batch));
            for table in tables() {
                let mut engine = engine(&model, batch, Some(table), Trace::off());
                assert!(engine.can_chain(), "{name}");
                for lengths in [&[1, PASSES_MAX, 3][..], &[6, 6], &[4, 1, 1, 1, 5]] {
                    let found = chained(&mut engine, lengths, &first(batch));
                    assert_eq!(found, expected, "{name}, batch {batch}, {table:?}, {lengths:?}");
                }
                assert_eq!(engine.costs().unwrap().passes, 3 * u64::from(passes));
            }
        }
    }
}

/// What is drawn depends on the position, not on what passes were submitted together or whose neighbours
/// are drawn.
#[test]
fn chains_draw_what_single_passes_draw() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let choose = |engine: &mut Engine, seed: u32| {
        // The second sequence takes the likeliest token.
        for i in [0, 2] {
            let choice =
                Choice { temperature: 1.5, top_k: 40, top_p: 0.95, seed: [seed, i], ..Choice::default() };
            engine.set_choice(i * CONTEXT, Some(choice));
        }
    };
    let mut single = engine(&model, 3, None, Trace::off());
    let likeliest = one_by_one(&mut single, 12, &first(3));
    choose(&mut single, 1);
    let expected = one_by_one(&mut single, 12, &first(3));
    choose(&mut single, 2);
    let other = one_by_one(&mut single, 12, &first(3));
    let of = |found: &[Vec<u32>], sequence: usize| found.iter().map(|ids| ids[sequence]).collect::<Vec<_>>();
    assert_eq!(of(&expected, 1), of(&likeliest, 1));
    for sequence in [0, 2] {
        assert_ne!(of(&expected, sequence), of(&likeliest, sequence));
        assert_ne!(of(&expected, sequence), of(&other, sequence));
    }
    for table in tables() {
        let mut engine = engine(&model, 3, Some(table), Trace::off());
        choose(&mut engine, 1);
        for lengths in [&[1, 8, 3][..], &[6, 6], &[4, 1, 1, 1, 5]] {
            assert_eq!(chained(&mut engine, lengths, &first(3)), expected, "{table:?}, {lengths:?}");
        }
        (0..3).for_each(|i| engine.set_choice(i * CONTEXT, None));
        assert_eq!(chained(&mut engine, &[8, 4], &first(3)), likeliest);
    }
}

/// Weights and rows of KV caches travel for passes that follow each other as for single ones.
#[test]
fn chains_of_passes_for_which_something_travels_choose_the_same() {
    for (name, kind) in [("smol", WeightKind::W4), ("opt", WeightKind::W8)] {
        let model = Model::new(&fixture(name), kind);
        // No rows come before the first: what nobody wrote differs from place to place.
        let first: Vec<_> = first(3).into_iter().map(|token| PassToken { position: 0, ..token }).collect();
        let expected = one_by_one(&mut engine(&model, 3, None, Trace::off()), 10, &first);
        type Homes = fn(usize) -> Home;
        let weights: [Homes; 2] = [
            |_| Home::Vram,
            // The head stays where the table can be read.
            |unit| if unit.is_multiple_of(2) { Home::Vram } else { Home::Disk },
        ];
        let caches: [Home; 2] = [Home::Vram, Home::Host];
        let pinned = gpu().has(pipo_wgpu::gpu::Place::Pinned);
        let routes = || Route::ALL.into_iter().filter(|route| route.is_open(gpu()));
        for ((home, cache), route) in weights
            .iter()
            .flat_map(|home| caches.map(|cache| (home, cache)))
            .flat_map(|case| routes().map(move |route| (case, route)))
            .filter(|((_, cache), _)| pinned || *cache == Home::Vram)
        {
            let work = Work { batch: 3, ..Work::default() };
            let options = Options { cache_rows: 3 * CONTEXT, work, route, ..Options::default() };
            let is_head = |unit: usize| model.decoder.units[unit].spec.name.starts_with("head");
            let home = |unit: usize| if is_head(unit) { Home::Vram } else { home(unit) };
            let mut plan = plan_with(&model, &options, 4, home);
            plan.table = Some(Home::Vram);
            plan.caches.fill(cache);
            plan.cache_depth = if cache == Home::Host { 1 } else { 0 };
            let mut engine = model.engine(plan, &options);
            let found = chained(&mut engine, &[1, 1, 3, 1, 4], &first);
            assert_eq!(found, expected, "{name}, caches in {cache:?}, {route:?}");
        }
    }
}

/// Timed together, units that follow each other are one span, and all passes have one.
#[test]
fn units_in_a_row_are_timed_together() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let trace = Trace::coarse();
    let mut engine = engine(&model, 1, tables().next(), trace.clone());
    chained(&mut engine, &[4, 3, 2], &first(1));
    let spans = trace.spans().iter().filter(|span| span.lane.task == pipo_wgpu::trace::Task::Compute).count();
    assert!(spans == 9 || spans == 0, "{spans} spans of 9 passes");
}

/// The timeline shows every unit of every pass, also of chains that were on their way together.
#[test]
fn timed_chains_choose_the_same() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let expected = one_by_one(&mut engine(&model, 1, None, Trace::off()), 9, &first(1));
    let (trace, table) = (Trace::on(), tables().next());
    let mut engine = engine(&model, 1, table, trace.clone());
    assert_eq!(chained(&mut engine, &[4, 3, 2], &first(1)), expected);
    let spans = trace.spans().iter().filter(|span| span.lane.task == pipo_wgpu::trace::Task::Compute).count();
    let units = model.decoder.units.len();
    assert!(spans == 9 * units || spans == 0, "{spans} spans of {units} units");
}

#[test]
fn a_broken_model_is_told_by_its_chain_and_leaves_none_behind() {
    let model = Model::changed(&fixture("smol"), WeightKind::W4, |decoder| {
        // A norm that divides by the root of a negative number.
        let ops = decoder.units.iter_mut().flat_map(|unit| &mut unit.ops);
        ops.for_each(|op| {
            if let pipo_wgpu::model::Op::RmsNorm { eps, .. } = op {
                *eps = -1e9;
            }
        });
    });
    let mut engine = engine(&model, 1, tables().next(), Trace::off());
    engine.submit_chain(&first(1), Ids::Given, 2).unwrap();
    engine.submit_chain(&moved(&first(1), 2), Ids::Chosen, 2).unwrap();
    let error = engine.read_chain().unwrap_err();
    assert!(matches!(error, Error::NonFinite(_)), "{error}");
    engine.drop_chains();
    engine.submit_chain(&first(1), Ids::Given, 1).unwrap();
    engine.drop_chains();
}
