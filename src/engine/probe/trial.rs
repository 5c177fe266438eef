//! Times a model's passes on the GPU with a few of its blocks and weights that mean nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Class, Engine, Options, Pass, PassToken, Weights, demand};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::Decoder;
use crate::pipeline::Route;
use crate::plan::{self, Budget, GpuTimes, Home, PassTime, Plan, Rates, Work};
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
    rounds_max: usize,
    /// A long prefill pass that would take more is estimated from a short one.
    pass_max: Duration,
    /// Whether the best round counts instead of a good one: a processor that plays GPU has
    /// other work as well.
    best: bool,
    /// Passes that follow each other before a result is read. A pass over a few blocks is over
    /// before the CPU has encoded it; in a row, as in a pass over many blocks, the GPU is the limit.
    in_a_row: u32,
}

impl Patience {
    fn with(gpu: &Gpu) -> Self {
        let ms = Duration::from_millis;
        match gpu.facts.is_software() {
            true => Patience {
                warm: ms(0),
                watch: ms(100),
                rounds_max: 8,
                pass_max: ms(60),
                best: true,
                in_a_row: 1,
            },
            false => Patience {
                warm: ms(150),
                watch: ms(150),
                rounds_max: 64,
                pass_max: ms(400),
                best: false,
                in_a_row: 8,
            },
        }
    }

    /// The time that counts.
    fn pick(&self, mut times: Vec<Duration>) -> f64 {
        times.sort_unstable();
        // Whatever disturbs a round makes it longer.
        times[if self.best { 0 } else { times.len() / 4 }].as_secs_f64()
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
        Lengths {
            batch,
            context: rounded(context).min(context_max),
            prefill: rounded(prefill).min(context_max),
        }
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
        "trial, reading apart, of {} heads of {} and {}, units of {} in {}, exact {}, cache {:?}, {:?}, {lengths:?}",
        decoder.heads,
        decoder.head_dim,
        decoder.kv_heads,
        units.join("+"),
        kinds.collect::<Vec<_>>().join("+"),
        options.exact,
        options.cache,
        options.shapes,
    )
}

/// Times passes; `None` where the budget is too small for a trial. `say` hears when one begins.
pub(super) fn run(
    gpu: &Arc<Gpu>,
    decoder: &Decoder,
    options: &Options,
    lengths: &Lengths,
    vram_bytes: u64,
    say: &mut dyn FnMut(&str),
) -> Result<Option<GpuTimes>> {
    let trial = Trial { gpu, decoder, options, lengths, patience: Patience::with(gpu) };
    let fits = |blocks| trial.plan(blocks, vram_bytes).is_some();
    let Some(blocks) = (1..=decoder.blocks.min(BLOCKS)).rev().find(|blocks| fits(*blocks)) else {
        return Ok(None);
    };
    say("how long a few of the model's blocks take");
    let Some(mut long) = trial.engine(blocks, vram_bytes)? else { return Ok(None) };
    let prefill = lengths.prefill.min(long.plan().chunk);
    if blocks == 1 {
        // All of the time is the block's: that errs on the safe side.
        let times = trial.passes(&mut [&mut long], prefill)?;
        return Ok(Some(times[0].split(&Passes::default(), 1)));
    }
    let left = vram_bytes - long.plan().total_bytes;
    let times = match trial.engine(1, left)?.filter(|short| short.plan().chunk >= prefill) {
        Some(mut short) => trial.passes(&mut [&mut long, &mut short], prefill)?,
        None => {
            let mut times = trial.passes(&mut [&mut long], prefill)?;
            drop(long);
            let Some(mut short) = trial.engine(1, vram_bytes)? else { return Ok(None) };
            times.extend(trial.passes(&mut [&mut short], prefill)?);
            times
        }
    };
    Ok(Some(times[0].split(&times[1], blocks - 1)))
}

/// Seconds of a model's passes.
#[derive(Clone, Copy, Default)]
struct Passes {
    decode: f64,
    /// A prefill pass without its tokens.
    prefill: f64,
    /// What each of them adds.
    prefill_token: f64,
    /// What a decode pass adds when its result is read before the next one begins.
    reading: f64,
}

impl Passes {
    /// Splits times into those of a block and of all else, by a model with `blocks` less.
    fn split(&self, shorter: &Passes, blocks: u32) -> GpuTimes {
        let split = |long: f64, short: f64| {
            let block = ((long - short) / f64::from(blocks)).max(0.0);
            PassTime { block, rest: (short - block).max(0.0) }
        };
        GpuTimes {
            decode: split(self.decode, shorter.decode),
            prefill: split(self.prefill, shorter.prefill),
            prefill_token: split(self.prefill_token, shorter.prefill_token),
            reading: self.reading,
        }
    }
}

struct Trial<'a> {
    gpu: &'a Arc<Gpu>,
    decoder: &'a Decoder,
    options: &'a Options,
    lengths: &'a Lengths,
    patience: Patience,
}

impl Trial<'_> {
    /// Options and plan of a resident engine over the first blocks, if that fits.
    fn plan(&self, blocks: u32, vram_bytes: u64) -> Option<(Options, Plan)> {
        let &Lengths { batch, context, prefill } = self.lengths;
        let options = Options {
            cache_rows: (batch * context).max(prefill),
            work: Work { batch, prompt_tokens: prefill.div_ceil(batch), new_tokens: 1 },
            trace: Trace::off(),
            route: Route::Staged,
            ..self.options.clone()
        };
        let cache_home = Some(Home::Vram);
        let budget = Budget { vram_bytes, cache_home, threads: THREADS, ..Budget::default() };
        let demand = demand(&self.decoder.truncated(blocks), &self.gpu.facts, &options, false);
        let plan = plan::plan(&demand, &budget, &Rates::default()).ok();
        plan.filter(|plan| plan.streamed_bytes == 0).map(|plan| (options, plan))
    }

    fn engine(&self, blocks: u32, vram_bytes: u64) -> Result<Option<Engine>> {
        let Some((options, plan)) = self.plan(blocks, vram_bytes) else { return Ok(None) };
        let decoder = self.decoder.truncated(blocks);
        let weights = Weights::synthetic(&decoder);
        Engine::load(self.gpu, decoder, &weights, plan, &options, |_| {}).map(Some)
    }

    /// Times passes with each engine. They take turns, so that all meet the same clocks.
    fn passes(&self, engines: &mut [&mut Engine], prefill: u32) -> Result<Vec<Passes>> {
        let tokens = decode_tokens(self.lengths);
        let decode = self.seconds(engines, Class::Decode, &tokens, self.patience.in_a_row)?;
        let mut reading = 0.0;
        if self.patience.in_a_row > 1 {
            let alone = self.seconds(engines, Class::Decode, &tokens, 1)?;
            let more = alone.iter().zip(&decode).map(|(alone, row)| alone - row);
            reading = more.fold(f64::INFINITY, f64::min).max(0.0);
        }
        let with_decode = |(decode, (prefill, prefill_token)): (f64, (f64, f64))| Passes {
            decode,
            prefill,
            prefill_token,
            reading,
        };
        let read: Vec<_> = decode.iter().map(|decode| decode + reading).collect();
        let prefill = self.prefills(engines, prefill, &read)?;
        Ok(decode.into_iter().zip(prefill).map(with_decode).collect())
    }

    /// Seconds of prefill passes: without their tokens, and what each of them adds.
    fn prefills(&self, engines: &mut [&mut Engine], tokens: u32, decode: &[f64]) -> Result<Vec<(f64, f64)>> {
        // A prompt of one token is read by decode kernels.
        if tokens == 1 {
            return Ok(decode.iter().map(|decode| (*decode, 0.0)).collect());
        }
        let tile = tokens.min(TILE_TOKENS);
        let first = self.seconds(engines, Class::Prefill, &prefill_tokens(tile), 1)?;
        if tokens == tile {
            return Ok(first.into_iter().map(|first| (first, 0.0)).collect());
        }
        let (tile, more) = (f64::from(tile), f64::from(tokens - tile));
        if first[0] * more / tile > self.patience.pass_max.as_secs_f64() {
            return Ok(first.into_iter().map(|first| (0.0, first / tile)).collect());
        }
        let second = self.seconds(engines, Class::Prefill, &prefill_tokens(tokens), 1)?;
        let line = |(first, second): (f64, f64)| {
            let each = ((second - first) / more).max(0.0);
            ((first - each * tile).max(0.0), each)
        };
        Ok(first.into_iter().zip(second).map(line).collect())
    }

    /// Seconds of a pass over these tokens with each engine, one of so many in a row.
    fn seconds(
        &self,
        engines: &mut [&mut Engine],
        class: Class,
        tokens: &[PassToken],
        in_a_row: u32,
    ) -> Result<Vec<f64>> {
        let selected: Vec<u32> = match class {
            Class::Decode => (0..tokens.len() as u32).collect(),
            Class::Prefill => vec![tokens.len() as u32 - 1],
        };
        let pass = Pass { tokens, selected: &selected, class };
        let Patience { warm, watch, rounds_max, .. } = self.patience;
        let start = Instant::now();
        round(engines, &pass, in_a_row)?;
        while start.elapsed() < warm {
            round(engines, &pass, in_a_row)?;
        }
        let mut times = vec![Vec::new(); engines.len()];
        let start = Instant::now();
        while times[0].is_empty() || (start.elapsed() < watch && times[0].len() < rounds_max) {
            for (times, time) in times.iter_mut().zip(round(engines, &pass, in_a_row)?) {
                times.push(time);
            }
        }
        Ok(times.into_iter().map(|times| self.patience.pick(times)).collect())
    }
}

/// A pass with each engine, one of so many from the first command to the ids that the last chose.
fn round(engines: &mut [&mut Engine], pass: &Pass<'_>, in_a_row: u32) -> Result<Vec<Duration>> {
    let once = |engine: &mut &mut Engine| {
        let start = Instant::now();
        for _ in 0..in_a_row {
            engine.forward(pass)?;
        }
        engine.most_likely()?;
        Ok(start.elapsed() / in_a_row)
    };
    engines.iter_mut().map(once).collect()
}

/// One token of each sequence, at the end of its context.
fn decode_tokens(lengths: &Lengths) -> Vec<PassToken> {
    let &Lengths { batch, context, .. } = lengths;
    let token = |sequence| PassToken { id: 0, position: context - 1, cache_start: sequence * context };
    (0..batch).map(token).collect()
}

/// A prompt from its start.
fn prefill_tokens(count: u32) -> Vec<PassToken> {
    (0..count).map(|position| PassToken { id: 0, position, cache_start: 0 }).collect()
}
