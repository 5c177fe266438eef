//! Finds the shapes in which an adapter runs kernels fastest, by trying them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::remembered::Remembered;
use super::rig::{Context, Product, seconds_each};
use crate::error::{Error, Result};
use crate::gpu::{Dispatch, Gpu, Pipelines, Stopwatch};
use crate::kernels::sizes::{BySize, Form, SizeClass};
use crate::kernels::{CacheKind, Shape, Shapes, attention, attention_merge, matvec_exact, matvec_int8};
use crate::quant::WeightKind;

/// A shape must be this much faster than the usual one: what is chosen should not hang on chance.
const MARGIN: f64 = 0.97;
/// How often each candidate has its turn.
const ROUNDS: usize = 2;
/// Time for which a GPU works beforehand: its clock takes a while to rise.
const WARM_TIME: Duration = Duration::from_millis(150);

/// How much is tried.
struct Patience {
    /// Candidates that have not had their turn by then lose.
    all: Duration,
    /// Length of one measurement.
    pass_seconds: f64,
    /// Bytes of weights that take turns: more than a cache holds.
    rotated_bytes: u64,
    /// GPU memory that must be free.
    bytes: u64,
    /// Tokens of the products that are timed, each with its weight.
    tokens: &'static [(u32, f64)],
    /// Positions of the context that attention is timed with.
    positions: u32,
}

impl Patience {
    fn with(gpu: &Gpu) -> Self {
        match gpu.facts.is_software() {
            true => Patience {
                all: Duration::from_secs(3),
                pass_seconds: 2e-3,
                rotated_bytes: 0,
                bytes: 32 << 20,
                tokens: &[(1, 1.0)],
                positions: 256,
            },
            false => Patience {
                all: Duration::from_secs(4),
                pass_seconds: 1e-3,
                rotated_bytes: 256 << 20,
                bytes: 768 << 20,
                tokens: &[(1, 2.0), (4, 1.0)],
                positions: 4096,
            },
        }
    }
}

/// The fastest shapes of an adapter, measured at its first use and remembered from then on. Where
/// they cannot be measured, the usual ones. `say` hears when it takes time.
///
/// # Errors
/// As [`crate::os::cache_folder`], or on Ctrl-C.
pub fn tune(gpu: &Arc<Gpu>, vram_bytes: u64, again: bool, say: &mut dyn FnMut(&str)) -> Result<Shapes> {
    let what = format!("shapes with {:?}", gpu.facts.features);
    let mut find = |again| {
        Remembered::of(gpu, again)?.or_measure(&what, || {
            let patience = Patience::with(gpu);
            if vram_bytes < patience.bytes {
                return Err(Error::Budget(format!("{} bytes would be needed", patience.bytes)));
            }
            say("which kernel shapes are fastest");
            Tuning::new(gpu, patience)?.run()
        })
    };
    let found = match find(again) {
        // Somebody changed the file.
        Ok(shapes) if !shapes.fit() => find(true),
        found => found,
    };
    match found {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => {
            log::info!("the usual kernel shapes: {error}");
            Ok(Shapes::for_adapter(&gpu.facts))
        }
        found => found,
    }
}

struct Tuning<'a> {
    gpu: &'a Arc<Gpu>,
    watch: Stopwatch,
    patience: Patience,
    start: Instant,
    is_warm: bool,
}

/// What is timed for a candidate: dispatches that take turns, for so many tokens, with a weight.
type Work = (Vec<Dispatch>, u32, f64);

impl<'a> Tuning<'a> {
    fn new(gpu: &'a Arc<Gpu>, patience: Patience) -> Result<Self> {
        Ok(Tuning { gpu, watch: Stopwatch::new(gpu)?, patience, start: Instant::now(), is_warm: false })
    }

    fn run(mut self) -> Result<Shapes> {
        let mut shapes = Shapes::for_adapter(&self.gpu.facts);
        if self.gpu.facts.is_software() {
            // It compiles when a kernel first runs, which takes a tenth of a second each time; and
            // sizes and kinds of matrices make little difference to it.
            let shape = self.int8(SizeClass { small: true, form: Form::Square }, &shapes)?;
            (shapes.matvec_int8, shapes.matvec_exact) = (BySize::same(shape), BySize::same(shape));
        } else {
            for class in SizeClass::ALL {
                shapes.matvec_int8.set(class, self.int8(class, &shapes)?);
                shapes.matvec_exact.set(class, self.exact(class, &shapes)?);
            }
        }
        shapes.attention = self.attention(shapes.attention)?;
        log::info!("kernel shapes after {:.2} s: {shapes:?}", self.start.elapsed().as_secs_f64());
        Ok(shapes)
    }

    /// Products of a class: for one token, what decoding mostly is, and for a few.
    fn products(&self, class: SizeClass) -> Result<Vec<(Product, f64)>> {
        let rotated = if class.small { 0 } else { self.patience.rotated_bytes };
        let product = |(tokens, weight)| {
            Ok((Product::new(self.gpu, WeightKind::W4, sides(class), tokens, rotated)?, weight))
        };
        self.patience.tokens.iter().copied().map(product).collect()
    }

    fn int8(&mut self, class: SizeClass, usual: &Shapes) -> Result<Shape> {
        let ([rows, cols], products) = (sides(class), self.products(class)?);
        let candidates = first(usual.matvec_int8.of(rows, cols), Shape::candidates(&self.gpu.facts));
        self.fastest(&candidates, |pipelines, shape| {
            let work = |(product, weight): &(Product, f64)| {
                let Product { matrix, kind, tokens, .. } = *product;
                let spec = matvec_int8::Spec { matrix, kind, shape, tokens_per_group: tokens };
                let dispatches = product.int8().map(|args| matvec_int8::dispatch(pipelines, &spec, &args));
                Ok((dispatches.collect::<Result<_>>()?, tokens, *weight))
            };
            products.iter().map(work).collect()
        })
    }

    fn exact(&mut self, class: SizeClass, usual: &Shapes) -> Result<Shape> {
        let ([rows, cols], products) = (sides(class), self.products(class)?);
        let candidates = first(usual.matvec_exact.of(rows, cols), Shape::candidates(&self.gpu.facts));
        self.fastest(&candidates, |pipelines, shape| {
            let work = |(product, weight): &(Product, f64)| {
                let Product { matrix, kind, tokens, .. } = *product;
                let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group: tokens };
                let dispatches = product.exact().map(|args| matvec_exact::dispatch(pipelines, &spec, &args));
                Ok((dispatches.collect::<Result<_>>()?, tokens, *weight))
            };
            products.iter().map(work).collect()
        })
    }

    fn attention(&mut self, usual: attention::Shape) -> Result<attention::Shape> {
        let (heads, kv_heads, head_dim) =
            if self.gpu.facts.is_software() { (12, 4, 64) } else { (32, 8, 128) };
        let spec =
            attention::Spec { heads, kv_heads, head_dim, cache: CacheKind::F16, window: None, scale: 0.1 };
        let candidates = first(usual, attention::Shape::candidates(&self.gpu.facts));
        let splits_max = candidates.iter().map(|shape| shape.splits).max().unwrap_or(1);
        let context = Context::new(self.gpu, spec, self.patience.positions, splits_max)?;
        self.fastest(&candidates, |pipelines, shape| {
            let split = shape.splits > 1;
            let mut dispatches =
                vec![attention::dispatch_shaped(pipelines, &spec, shape, &context.args(split))?];
            if split {
                let [step, parts, y] = context.merge();
                let spec = attention_merge::Spec { heads, head_dim, splits: shape.splits };
                let args = attention_merge::Args { step, parts, y };
                dispatches.push(attention_merge::dispatch(pipelines, &spec, &args)?);
            }
            let launches = dispatches.len() as f64;
            Ok(vec![(dispatches, 1, launches)])
        })
    }

    /// The fastest candidate. The first one is the usual one, which others must beat by some margin.
    fn fastest<S: Copy + std::fmt::Debug>(
        &mut self,
        candidates: &[S],
        prepare: impl Fn(&mut Pipelines, S) -> Result<Vec<Work>>,
    ) -> Result<S> {
        let mut pipelines = Pipelines::deferred(self.gpu);
        let works: Vec<_> =
            candidates.iter().map(|shape| prepare(&mut pipelines, *shape)).collect::<Result<_>>()?;
        pipelines.finish()?;
        self.warm_up(&works[0])?;
        let mut seconds = vec![f64::INFINITY; candidates.len()];
        for _ in 0..ROUNDS {
            for (work, best) in works.iter().zip(&mut seconds) {
                crate::os::check_interrupt()?;
                if self.start.elapsed() < self.patience.all {
                    *best = best.min(self.seconds(work)?);
                }
            }
        }
        for (shape, seconds) in candidates.iter().zip(&seconds) {
            log::debug!("{:9.2} us {shape:?}", seconds * 1e6);
        }
        seconds[0] *= MARGIN;
        let least = (0..candidates.len()).min_by(|a, b| seconds[*a].total_cmp(&seconds[*b]));
        Ok(candidates[least.unwrap_or(0)])
    }

    /// Seconds of a candidate's work, each part as often as its weight says.
    fn seconds(&mut self, work: &[Work]) -> Result<f64> {
        let mut sum = 0.0;
        for (dispatches, tokens, weight) in work {
            let seconds = self.patience.pass_seconds;
            sum += weight * seconds_each(self.gpu, &mut self.watch, dispatches, *tokens, seconds)?;
        }
        Ok(sum)
    }

    fn warm_up(&mut self, work: &[Work]) -> Result<()> {
        let start = Instant::now();
        while !self.gpu.facts.is_software() && !self.is_warm && start.elapsed() < WARM_TIME {
            self.seconds(work)?;
        }
        self.is_warm = true;
        Ok(())
    }
}

/// The candidates with the usual shape in front.
fn first<S: Copy + PartialEq>(usual: S, candidates: Vec<S>) -> Vec<S> {
    let others = candidates.into_iter().filter(|shape| *shape != usual);
    std::iter::once(usual).chain(others).collect()
}

/// A matrix of a class, as models have them: of 125M parameters, and of 8 billion.
fn sides(class: SizeClass) -> [u32; 2] {
    match (class.small, class.form) {
        (true, Form::Square) => [1280, 768],
        (true, Form::Tall) => [4096, 768],
        (true, Form::Wide) => [768, 2048],
        (false, Form::Square) => [4096, 4096],
        (false, Form::Tall) => [28_672, 4096],
        (false, Form::Wide) => [4096, 14_336],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_tried_on_one_of_its_own() {
        for class in SizeClass::ALL {
            let [rows, cols] = sides(class);
            assert_eq!(SizeClass::of(rows, cols), class);
        }
    }
}
