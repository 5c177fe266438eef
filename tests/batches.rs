//! Sequences that share passes say what each says alone, bit for bit.

use pipo_wgpu::engine::{Engine, Options};
use pipo_wgpu::gpu::Place;
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Budget, Home, Work};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Batch, End, Event, Limits, Request, Session};

use crate::common::{Model, fixture, gpu};

const CONTEXT: u32 = 40;

/// One sequence's prompt length and what ends it.
struct Case {
    prompt: usize,
    max_tokens: usize,
    /// Tokens after which the reader has had enough.
    stop_after: usize,
    context: u32,
    end: End,
}

const CASES: [Case; 5] = [
    Case { prompt: 7, max_tokens: 9, stop_after: 99, context: CONTEXT, end: End::Length },
    Case { prompt: 1, max_tokens: 4, stop_after: 99, context: CONTEXT, end: End::Length },
    Case { prompt: 21, max_tokens: 12, stop_after: 3, context: CONTEXT, end: End::Stopped },
    Case { prompt: 2, max_tokens: 50, stop_after: 99, context: 14, end: End::Context },
    Case { prompt: 10, max_tokens: 1, stop_after: 99, context: CONTEXT, end: End::Length },
];

impl Case {
    fn ids(&self, number: usize) -> Vec<u32> {
        (0..self.prompt as u32).map(|i| (i * 37 + 11 + 5 * number as u32) % 120).collect()
    }

    fn limits(&self) -> Limits {
        Limits { max_tokens: self.max_tokens, end_tokens: Vec::new() }
    }
}

/// How tokens are chosen: greedy, or drawn by a seed of the sequence's own; the mixed batch has both.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    Greedy,
    Drawn,
    Mixed,
}

impl Choice {
    fn sampler(self, number: usize) -> Sampler {
        let greedy = self == Choice::Greedy || (self == Choice::Mixed && number.is_multiple_of(2));
        let options = match greedy {
            true => SamplerOptions::default(),
            false => SamplerOptions {
                temperature: 1.3,
                repetition_penalty: 1.2,
                seed: 5 + number as u64,
                ..SamplerOptions::default()
            },
        };
        Sampler::new(options).unwrap()
    }
}

/// How an engine is made: passes of `chunk` tokens, of which `selected` have logits.
#[derive(Clone, Copy, Debug)]
struct Setup {
    chunk: u32,
    selected: u32,
    streamed: bool,
    exact: bool,
    /// Whether keys and values travel.
    host_caches: bool,
}

const ALONE: Setup = Setup { chunk: 16, selected: 1, streamed: false, exact: false, host_caches: false };

fn engine(model: &Model, setup: Setup, contexts: &[u32]) -> Engine {
    let options = Options {
        cache_rows: contexts.iter().sum(),
        work: Work { batch: contexts.len() as u32, ..Work::default() },
        route: Route::Staged,
        exact: setup.exact,
        ..Options::default()
    };
    let budget = Budget { vram_bytes: 256 << 20, threads: 2, ..Budget::default() };
    let mut plan = model.plan(&options, &budget).unwrap();
    if setup.streamed {
        let travels = || model.decoder.units.iter().map(|unit| unit.spec.bytes()).step_by(2);
        plan.homes.iter_mut().step_by(2).for_each(|home| *home = Home::Disk);
        (plan.slot_bytes, plan.streamed_bytes) = (travels().max().unwrap(), travels().sum());
        (plan.depth, plan.piece_bytes) = (2, 4096);
    }
    if setup.host_caches && gpu().has(Place::Pinned) {
        plan.caches.fill(Home::Host);
        plan.cache_depth = 2;
    }
    (plan.chunk, plan.selected) = (setup.chunk.min(plan.chunk), setup.selected.min(plan.selected));
    model.engine(plan, &options)
}

fn alone(model: &Model, exact: bool, choice: Choice) -> Vec<Vec<u32>> {
    let text = |(number, case): (usize, &Case)| {
        let mut engine = engine(model, Setup { exact, ..ALONE }, &[case.context]);
        let mut ids = Vec::new();
        let figures = Session::new(&mut engine, case.context)
            .generate(&case.ids(number), &case.limits(), &mut choice.sampler(number), |id| {
                ids.push(id);
                Ok(ids.len() < case.stop_after)
            })
            .unwrap();
        assert_eq!(figures.ends, [case.end], "{number}");
        ids
    };
    CASES.iter().enumerate().map(text).collect()
}

fn together(batch: &mut Batch<'_>, cases: &[Case], choice: Choice) -> Vec<Vec<u32>> {
    let prompts: Vec<_> = cases.iter().enumerate().map(|(number, case)| case.ids(number)).collect();
    let limits: Vec<_> = cases.iter().map(Case::limits).collect();
    let mut samplers: Vec<_> = (0..cases.len()).map(|number| choice.sampler(number)).collect();
    let mut requests: Vec<_> = (prompts.iter().zip(&limits).zip(&mut samplers))
        .map(|((prompt, limits), sampler)| Request { prompt, limits, sampler })
        .collect();
    let mut texts = vec![Vec::new(); cases.len()];
    let mut ends = vec![None; cases.len()];
    let figures = batch
        .generate(&mut requests, |number, event| {
            assert_eq!(ends[number], None, "{number}: nothing comes after the end");
            match event {
                Event::Token(id) => texts[number].push(id),
                Event::End(end) => ends[number] = Some(end),
            }
            Ok(texts[number].len() < cases[number].stop_after)
        })
        .unwrap();
    let wanted: Vec<_> = cases.iter().map(|case| case.end).collect();
    assert_eq!(figures.ends, wanted);
    assert_eq!(ends, wanted.iter().copied().map(Some).collect::<Vec<_>>());
    let chosen = texts.iter().map(Vec::len).sum::<usize>();
    assert_eq!((figures.new_tokens, figures.decode.tokens), (chosen, chosen - cases.len()));
    assert_eq!(figures.prefill.tokens, prompts.iter().map(Vec::len).sum::<usize>());
    texts
}

#[test]
fn a_batch_says_what_each_sequence_says_alone() {
    let setups = [
        Setup { chunk: 3, selected: 2, streamed: false, exact: false, host_caches: false },
        Setup { chunk: 16, selected: 16, streamed: true, exact: false, host_caches: true },
        Setup { chunk: 7, selected: 1, streamed: true, exact: true, host_caches: false },
        Setup { chunk: 64, selected: 64, streamed: false, exact: true, host_caches: false },
    ];
    for (name, kind) in [("smol", WeightKind::W4), ("llama_bias", WeightKind::W8)] {
        let model = Model::new(&fixture(name), kind);
        let choices = [Choice::Greedy, Choice::Drawn, Choice::Mixed];
        for exact in [false, true] {
            let expected = choices.map(|choice| alone(&model, exact, choice));
            assert_ne!(expected[0], expected[1]);
            // Workgroups that serve two tokens, and eight.
            for (setup, sizes) in
                setups.iter().filter(|s| s.exact == exact).flat_map(|s| [(s, 1..=2), (s, 3..=5)])
            {
                let contexts = CASES.each_ref().map(|case| case.context);
                let mut engine = engine(&model, *setup, &contexts[..*sizes.end()]);
                for size in sizes {
                    let mut batch = Batch::new(&mut engine, &contexts[..size]);
                    for (choice, expected) in choices.iter().zip(&expected) {
                        let texts = together(&mut batch, &CASES[..size], *choice);
                        assert_eq!(texts, expected[..size], "{name}, {setup:?}, batch {size}, {choice:?}");
                        batch.clear();
                    }
                }
            }
        }
    }
}

/// Four sequences cost the passes of the longest, not those of all.
#[test]
fn passes_are_shared() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let cases = [2, 5, 9, 1].map(|max_tokens| Case {
        prompt: 4,
        max_tokens,
        stop_after: 99,
        context: CONTEXT,
        end: End::Length,
    });
    let contexts = [CONTEXT; 4];
    let setup = Setup { chunk: 16, selected: 16, streamed: true, exact: false, host_caches: false };
    let mut engine = engine(&model, setup, &contexts);
    together(&mut Batch::new(&mut engine, &contexts), &cases, Choice::Greedy);
    // One pass reads all four prompts, eight more make the longest text.
    assert_eq!(engine.costs().unwrap().passes, 1 + 8);
    assert_eq!(engine.costs().unwrap().streamed_bytes, 9 * engine.plan().streamed_bytes);
}

#[test]
fn what_cannot_be_read_is_refused_before_any_pass() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let contexts = [CONTEXT; 2];
    let mut engine = engine(&model, ALONE, &contexts);
    let limits = Limits { max_tokens: 4, end_tokens: Vec::new() };
    let (fine, long) = (vec![1; 3], vec![1; CONTEXT as usize + 1]);
    for (wrong, complaint) in
        [(&[][..], "no token to start from"), (&long, "more than 40 tokens"), (&[1, u32::MAX], "4294967295")]
    {
        let mut samplers = [Choice::Greedy.sampler(0), Choice::Greedy.sampler(1)];
        let [first, second] = &mut samplers;
        let mut requests = [
            Request { prompt: &fine, limits: &limits, sampler: first },
            Request { prompt: wrong, limits: &limits, sampler: second },
        ];
        let mut batch = Batch::new(&mut engine, &contexts);
        let refused = batch.generate(&mut requests, |_, _| panic!("nothing is chosen")).unwrap_err();
        assert!(refused.to_string().contains(complaint), "{refused}");
        drop(batch);
        assert_eq!(engine.costs().unwrap().passes, 0);
    }
}
