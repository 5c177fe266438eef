//! A conversation that goes on: only what is new of it is read, and it says what it would say anew.

use pipo_wgpu::engine::Options;
use pipo_wgpu::plan::Budget;
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Batch, Limits, Request, Session};

use super::common::{Model, fixture};

const ROWS: u32 = 64;

#[test]
fn a_common_beginning_is_not_read_again() {
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::F32);
    let options = Options { cache_rows: ROWS, exact: true, ..Options::default() };
    let limits = Limits { max_tokens: 5, end_tokens: Vec::new() };
    let mut engine = model.resident(&options);
    let mut session = Session::new(&mut engine, ROWS);
    let answer = |session: &mut Session<'_>, prompt: &[u32]| {
        let mut sampler =
            Sampler::new(SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }).unwrap();
        let mut ids = Vec::new();
        let figures = session.go_on(prompt, &limits, &mut sampler, |id| {
            ids.push(id);
            Ok(true)
        });
        (ids, figures.unwrap().prefill.tokens)
    };
    let first: Vec<u32> = vec![5, 9, 13, 21, 34];
    let (said, read) = answer(&mut session, &first);
    assert_eq!((said.len(), read), (5, 5));
    // The answer's last token was chosen but not read yet.
    let second = [&first[..], &said, &[40, 41]].concat();
    let (more, read) = answer(&mut session, &second);
    assert_eq!(read, 3);
    // The same once more: one token has to be read for what comes after it.
    assert_eq!(answer(&mut session, &second), (more.clone(), 1));
    // Another ending, a shorter one, and something else altogether.
    let other = [&first[..], &said, &[50]].concat();
    let (other_said, read) = answer(&mut session, &other);
    assert_eq!(read, 1);
    assert_eq!(answer(&mut session, &first), (said.clone(), 1));
    let (strange, read) = answer(&mut session, &[7, 8]);
    assert_eq!(read, 2);
    drop(session);
    // Each as it is without a past.
    for (prompt, expected) in
        [(&first[..], &said), (&second, &more), (&other, &other_said), (&[7, 8], &strange)]
    {
        let mut session = Session::new(&mut engine, ROWS);
        assert_eq!(&answer(&mut session, prompt).0, expected, "{prompt:?}");
    }
}

/// All tokens of a prompt are told of, pass by pass, and none of what follows.
#[test]
fn passes_over_prompts_are_heard_of() {
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::F32);
    let options = Options { cache_rows: ROWS, ..Options::default() };
    let mut plan =
        model.plan(&options, &Budget { vram_bytes: 64 << 20, threads: 1, ..Budget::default() }).unwrap();
    plan.chunk = 16;
    let mut engine = model.engine(plan, &options);
    let limits = Limits { max_tokens: 3, end_tokens: Vec::new() };
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }).unwrap();
    let prompt: Vec<u32> = (5..45).collect();
    let mut told = Vec::new();
    let mut batch = Batch::new(&mut engine, &[ROWS]);
    batch.tell(|tokens| told.push(tokens));
    let mut requests = [Request { prompt: &prompt, limits: &limits, sampler: &mut sampler }];
    batch.generate(&mut requests, |_, _| Ok(true)).unwrap();
    drop(batch);
    assert_eq!(told, [16, 16, 8]);
}
