//! Times a model's passes on the GPU with a few of its blocks and weights that mean nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Class, Engine, Options, Pass, PassToken, Weights, demand};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::Decoder;
use crate::plan::{self, Budget, GpuTimes, Home, PassTime, Rates, Work};
use crate::trace::Trace;

/// Blocks of the longer of the two models whose times are compared.
const BLOCKS: u32 = 3;
/// Tokens of a short prefill pass: one tile of the kernels.
const TILE_TOKENS: u32 = 64;
/// Tokens of a long one at most.
const PREFILL_TOKENS_MAX: u32 = 512;
/// Threads that bring the weights, once.
const THREADS: usize = 2;

/// How long passes of one kind are repeated.
#[derive(Clone, Copy)]
struct Patience {
    warm: Duration,
    watch: Duration,
    passes_max: usize,
    /// A long prefill pass that would take more is estimated from a short one.
    pass_max: Duration,
}

impl Patience {
    fn with(gpu: &Gpu) -> Self {
        let ms = Duration::from_millis;
        match gpu.facts.is_software() {
            true => Patience { warm: ms(0), watch: ms(40), passes_max: 5, pass_max: ms(60) },
            false => Patience { warm: ms(80), watch: ms(80), passes_max: 64, pass_max: ms(400) },
        }
    }
}

/// Text lengths that a trial is run with: rounded, so that it serves similar runs as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    batch: u32,
    /// Tokens of each sequence in the middle of the decode passes.
    context: u32,
    /// Prompt tokens of a prefill pass.
    prefill: u32,
}

impl Lengths {
    pub(super) fn of(work: &Work, context_max: u32) -> Self {
        let batch = work.batch.max(1);
        let context = (work.prompt_tokens + work.new_tokens / 2).max(1);
        let prefill = work.prompt_tokens.saturating_mul(batch).clamp(1, PREFILL_TOKENS_MAX);
        Lengths { batch, context: rounded(context).min(context_max), prefill: rounded(prefill).min(context_max) }
    }
}

/// The next number with three binary digits.
fn rounded(number: u32) -> u32 {
    let step = 1 << number.max(1).ilog2().saturating_sub(2);
    number.next_multiple_of(step)
}

/// What a trial depends on besides the adapter.
pub(super) fn key(decoder: &Decoder, options: &Options, lengths: &Lengths) -> String {
    let short = decoder.truncated(1);
    let units: Vec<_> = short.units.iter().map(|unit| unit.spec.bytes().to_string()).collect();
    let kinds = short.units[0].spec.tensors.iter().map(|tensor| format!("{:?}", tensor.kind));
    format!(
        "trial of {} heads of {} and {}, units of {} in {}, exact {}, {lengths:?}",
        decoder.heads,
        decoder.head_dim,
        decoder.kv_heads,
        units.join("+"),
        kinds.collect::<Vec<_>>().join("+"),
        options.exact,
    )
}

/// Times passes; `None` where the budget is too small for a trial.
pub(super) fn run(
    gpu: &Arc<Gpu>,
    decoder: &Decoder,
    options: &Options,
    lengths: &Lengths,
    vram_bytes: u64,
) -> Result<Option<GpuTimes>> {
    let trial = Trial { gpu, decoder, options, lengths, vram_bytes };
    let long = decoder.blocks.min(BLOCKS);
    let Some(most) = trial.passes(long)? else { return Ok(None) };
    if long == 1 {
        return Ok(Some(combine(&most, &most, 1)));
    }
    Ok(trial.passes(1)?.map(|least| combine(&most, &least, long - 1)))
}

/// Seconds of passes through a short model.
struct Passes {
    decode: f64,
    prefill: f64,
    /// What a token more adds.
    prefill_token: f64,
}

/// Splits times into those of a block and of all else, from two models `blocks` apart.
fn combine(most: &Passes, least: &Passes, blocks: u32) -> GpuTimes {
    let split = |most: f64, least: f64| {
        let block = ((most - least) / f64::from(blocks)).max(0.0);
        PassTime { block, rest: (least - block).max(0.0) }
    };
    GpuTimes {
        decode: split(most.decode, least.decode),
        prefill: split(most.prefill, least.prefill),
        prefill_token: split(most.prefill_token, least.prefill_token),
    }
}

struct Trial<'a> {
    gpu: &'a Arc<Gpu>,
    decoder: &'a Decoder,
    options: &'a Options,
    lengths: &'a Lengths,
    vram_bytes: u64,
}

impl Trial<'_> {
    fn passes(&self, blocks: u32) -> Result<Option<Passes>> {
        let &Lengths { batch, context, prefill } = self.lengths;
        let decoder = self.decoder.truncated(blocks);
        let work = Work { batch, prompt_tokens: prefill, new_tokens: 1 };
        let options = Options {
            cache_rows: (batch * context).max(prefill),
            work,
            trace: Trace::off(),
            route: crate::pipeline::Route::Staged,
            ..self.options.clone()
        };
        let budget = Budget {
            vram_bytes: self.vram_bytes,
            cache_home: Some(Home::Vram),
            threads: THREADS,
            ..Budget::default()
        };
        let demand = demand(&decoder, &self.gpu.facts, &options, false);
        let Ok(plan) = plan::plan(&demand, &budget, &Rates::default()) else { return Ok(None) };
        if plan.streamed_bytes > 0 {
            return Ok(None);
        }
        let prefill = prefill.min(plan.chunk);
        let weights = Weights::synthetic(&decoder);
        let engine = Engine::load(self.gpu, decoder, &weights, plan, &options, |_| {})?;
        let mut runner = Runner { engine, patience: Patience::with(self.gpu) };
        let decode = runner.seconds(Class::Decode, &self.decode_tokens())?;
        let short = prefill.min(TILE_TOKENS);
        let first = runner.seconds(Class::Prefill, &prefill_tokens(short))?;
        // A prompt of one token is read by decode kernels.
        let (prefill, prefill_token) = match prefill {
            1 => (decode, 0.0),
            all if all == short => (first, 0.0),
            all if first * f64::from(all / short) > runner.patience.pass_max.as_secs_f64() => {
                (0.0, first / f64::from(short))
            }
            all => {
                let second = runner.seconds(Class::Prefill, &prefill_tokens(all))?;
                let each = ((second - first) / f64::from(all - short)).max(0.0);
                ((first - each * f64::from(short)).max(0.0), each)
            }
        };
        Ok(Some(Passes { decode, prefill, prefill_token }))
    }

    /// One token of each sequence, at the end of its context.
    fn decode_tokens(&self) -> Vec<PassToken> {
        let &Lengths { batch, context, .. } = self.lengths;
        let token = |sequence| PassToken { id: 0, position: context - 1, cache_start: sequence * context };
        (0..batch).map(token).collect()
    }
}

fn prefill_tokens(count: u32) -> Vec<PassToken> {
    (0..count).map(|position| PassToken { id: 0, position, cache_start: 0 }).collect()
}

struct Runner {
    engine: Engine,
    patience: Patience,
}

impl Runner {
    /// Seconds of a pass, from its first command to the ids it chose.
    fn seconds(&mut self, class: Class, tokens: &[PassToken]) -> Result<f64> {
        let selected: Vec<u32> = match class {
            Class::Decode => (0..tokens.len() as u32).collect(),
            Class::Prefill => vec![tokens.len() as u32 - 1],
        };
        let pass = Pass { tokens, selected: &selected, class };
        let mut once = || -> Result<Duration> {
            let start = Instant::now();
            self.engine.forward(&pass)?;
            self.engine.most_likely()?;
            Ok(start.elapsed())
        };
        let Patience { warm, watch, passes_max, .. } = self.patience;
        let start = Instant::now();
        once()?;
        while start.elapsed() < warm {
            once()?;
        }
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || (start.elapsed() < watch && times.len() < passes_max) {
            times.push(once()?);
        }
        times.sort_unstable();
        Ok(times[times.len() / 2].as_secs_f64())
    }
}
