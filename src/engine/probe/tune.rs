//! Finds the shapes in which an adapter runs kernels fastest, by trying them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::remembered::Remembered;
use super::rig::{Context, Look, Product, seconds_each};
use crate::error::{Error, Result};
use crate::gpu::{Dispatch, Gpu, Pipelines, Stopwatch};
use crate::kernels::matvec_core::{Operation, Tile, candidates};
use crate::kernels::sizes::{BySize, Form, SizeClass};
use crate::kernels::{CacheKind, Matrix, Shape, Shapes, attention, attention_decode};
use crate::os;
use crate::quant::WeightKind;

/// A shape must be this much faster than the usual one: what is chosen should not hang on chance.
const MARGIN: f64 = 0.97;
/// Candidates that come into the second round, and how often each of them has its turn there.
const SECOND_ROUND: usize = 5;
const TURNS: usize = 2;

/// How much is tried.
struct Patience {
    /// What is not measured by then stays as usual.
    all: Duration,
    /// How long one look takes.
    look: Look,
    /// Bytes of weights that take turns: more than a cache holds.
    rotated_bytes: u64,
    /// GPU memory that must be free.
    bytes: u64,
    /// Tokens of the products that are timed, each with its weight; the first is enough to leave
    /// most candidates behind.
    tokens: &'static [(u32, f64)],
    /// Positions of the contexts that attention is timed with, the longest last, each with its weight.
    positions: &'static [(u32, f64)],
}

impl Patience {
    fn with(gpu: &Gpu) -> Self {
        let ms = Duration::from_millis;
        match gpu.facts.is_software() {
            // It compiles when a kernel first runs, which takes a tenth of a second each time.
            true => Patience {
                all: ms(4000),
                look: Look { pass_seconds: 2e-3, repeats: 2, warm: ms(0) },
                rotated_bytes: 0,
                bytes: 32 << 20,
                tokens: &[(1, 1.0)],
                positions: &[(256, 1.0)],
            },
            false => Patience {
                all: ms(8000),
                look: Look { pass_seconds: 4e-4, repeats: 3, warm: ms(0) },
                rotated_bytes: 256 << 20,
                bytes: 768 << 20,
                // One token is what decoding mostly is; for more there are tiles of their own.
                tokens: &[(1, 0.75), (8, 0.25)],
                positions: &[(512, 0.5), (8192, 0.5)],
            },
        }
    }

    /// The same with the GPU's clock risen before.
    fn warm(&self, gpu: &Gpu) -> Look {
        let warm = if gpu.facts.is_software() { 0 } else { 100 };
        Look { warm: Duration::from_millis(warm), ..self.look }
    }
}

/// The fastest shapes of an adapter, measured at its first use and remembered from then on. Where
/// they cannot be measured, the usual ones. `say` hears when it takes time.
///
/// # Errors
/// As [`os::cache_folder`], or on Ctrl-C.
pub fn tune(gpu: &Arc<Gpu>, vram_bytes: u64, again: bool, say: &mut dyn FnMut(&str)) -> Result<Shapes> {
    let what = format!("shapes with {:?} in {:?}", gpu.facts.features, gpu.facts.limits);
    let mut find = |again| {
        Remembered::of(gpu, again)?.or_measure(&what, || {
            let patience = Patience::with(gpu);
            if vram_bytes < patience.bytes {
                return Err(Error::Budget(format!("{} bytes would be needed", patience.bytes)));
            }
            say("which kernel shapes are fastest");
            let (watch, start) = (Stopwatch::new(gpu)?, Instant::now());
            Tuning { gpu, watch, patience, start }.run()
        })
    };
    let found = match find(again) {
        // Somebody changed the file.
        Ok(shapes) if !shapes.fit(&gpu.facts) => find(true),
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
}

/// Dispatches that take turns, and how many tokens they are for.
type Work = (Vec<Dispatch>, u32);

impl Tuning<'_> {
    fn run(mut self) -> Result<Shapes> {
        let mut shapes = Shapes::for_adapter(&self.gpu.facts);
        let is_software = self.gpu.facts.is_software();
        // The large ones come first: time may be up before the others.
        for &small in if is_software { &[true][..] } else { &[false, true] } {
            for form in [Form::Tall, Form::Square, Form::Wide] {
                let class = SizeClass { small, form };
                let products = self.products(class)?;
                self.matvecs(class, &products, &mut shapes)?;
                if !is_software && class == (SizeClass { small: false, form: Form::Square }) {
                    shapes.matvec_exact = BySize::same(self.exact(&products, &shapes)?);
                }
            }
        }
        self.attentions(&mut shapes)?;
        log::info!("kernel shapes were tried for {:.2} s", self.start.elapsed().as_secs_f64());
        Ok(shapes)
    }

    /// Products of a class, for each number of tokens.
    fn products(&self, class: SizeClass) -> Result<Vec<(Product, f64)>> {
        let rotated = if class.small { 0 } else { self.patience.rotated_bytes };
        let one = Product::new(self.gpu, WeightKind::W4, sides(class), 1, rotated)?;
        let with = |(tokens, weight): &(u32, f64)| Ok((one.with_tokens(self.gpu, *tokens)?, *weight));
        self.patience.tokens.iter().map(with).collect()
    }

    /// Chooses the tiles of the operations that matrices of a class serve.
    fn matvecs(&mut self, class: SizeClass, products: &[(Product, f64)], shapes: &mut Shapes) -> Result<()> {
        let [rows, cols] = sides(class);
        // A processor's caches make no difference between the sizes that it can bear.
        let is_software = self.gpu.facts.is_software();
        let is_alike = |other: &SizeClass| *other == class || (is_software && other.form == class.form);
        let alike = || SizeClass::ALL.into_iter().filter(is_alike);
        let tiles = &mut shapes.matvecs;
        if class.form != Form::Wide {
            let tile = self.matvec(Operation::Int8, products, tiles.int8.of(rows, cols))?;
            alike().for_each(|class| tiles.int8.set(class, tile));
        }
        if class.form != Form::Tall {
            let tile = self.matvec(Operation::Residual, products, tiles.residual.of(rows, cols))?;
            alike().for_each(|class| tiles.residual.set(class, tile));
        }
        if class.form == Form::Tall && (is_software || !class.small) {
            tiles.gated = self.matvec(Operation::Gated, products, tiles.gated)?;
        }
        Ok(())
    }

    fn matvec(&mut self, operation: Operation, products: &[(Product, f64)], usual: Tile) -> Result<Tile> {
        let mut candidates = candidates(operation, &self.gpu.facts);
        if self.gpu.facts.is_software() {
            // Compiling is what takes the time there.
            candidates.retain(|tile| tile.unroll == 1 && tile.rows_each > 1 && tile.rows() >= 16);
        }
        self.fastest(&first(usual, candidates), products, |pipelines, product, tile| {
            product.matvec(pipelines, operation, tile)
        })
    }

    fn exact(&mut self, products: &[(Product, f64)], usual: &Shapes) -> Result<Shape> {
        let Matrix { rows, cols, .. } = products[0].0.matrix;
        let candidates = first(usual.matvec_exact.of(rows, cols), Shape::candidates(&self.gpu.facts));
        self.fastest(&candidates, products, |pipelines, product, shape| {
            product.matvec_exact(pipelines, shape)
        })
    }

    /// Chooses how attention of decode passes is laid out: its own kernel, and that of any pass where
    /// the adapter lacks what this needs.
    fn attentions(&mut self, shapes: &mut Shapes) -> Result<()> {
        let is_software = self.gpu.facts.is_software();
        let (heads, kv_heads, head_dim) = if is_software { (12, 4, 64) } else { (32, 8, 128) };
        let cache = CacheKind::F16;
        let spec =
            attention::Spec { heads, kv_heads, head_dim, cache, window: None, scale: 0.1, softcap: None };
        let usual = *shapes;
        let own = first(usual.attention_decode, attention_decode::Shape::candidates(&self.gpu.facts));
        let any = first(usual.attention, attention::Shape::candidates(&self.gpu.facts));
        let splits_max = any.iter().map(|shape| shape.splits).max().unwrap_or(1);
        let (mut own_scores, mut any_scores) = (vec![0.0; own.len()], vec![0.0; any.len()]);
        for &(positions, weight) in self.patience.positions {
            let one = Context::new(self.gpu, spec, positions, splits_max)?;
            // Between two uses of a block's cache come all weights: none of it is nearby any more.
            let more = self.patience.rotated_bytes / one.cache_bytes();
            let more = (1..more.min(8)).map(|_| Context::new(self.gpu, spec, positions, splits_max));
            let contexts: Vec<_> = std::iter::once(Ok(one)).chain(more).collect::<Result<_>>()?;
            let is_supported =
                self.attention(&contexts, weight, &own, &mut own_scores, |p, context, shape| {
                    context.decode(p, shape)
                })?;
            if !is_supported {
                self.attention(&contexts, weight, &any, &mut any_scores, |p, context, shape| {
                    context.attention(p, shape).map(Some)
                })?;
            }
        }
        let seconds = |scores: Vec<f64>| scores.into_iter().map(f64::exp).collect::<Vec<_>>();
        shapes.attention_decode = own[winner(&own, &seconds(own_scores))];
        shapes.attention = any[winner(&any, &seconds(any_scores))];
        Ok(())
    }

    /// Adds to each candidate's score what it takes for contexts that take turns; `false` if the
    /// adapter cannot run it.
    fn attention<S: Copy>(
        &mut self,
        contexts: &[Context],
        weight: f64,
        candidates: &[S],
        scores: &mut [f64],
        prepare: impl Fn(&mut Pipelines, &Context, S) -> Result<Option<Vec<Dispatch>>>,
    ) -> Result<bool> {
        let mut pipelines = Pipelines::deferred(self.gpu);
        let mut works = Vec::new();
        for shape in candidates {
            let mut all = Vec::new();
            for context in contexts {
                match prepare(&mut pipelines, context, *shape)? {
                    Some(dispatches) => all.extend(dispatches),
                    None => return Ok(false),
                }
            }
            works.push((all, 1));
        }
        pipelines.finish()?;
        let seconds = self.least(&works, TURNS)?;
        for ((score, each), (all, _)) in scores.iter_mut().zip(seconds).zip(&works) {
            // Each dispatch of one attention counts.
            *score += weight * (each * all.len() as f64 / contexts.len() as f64).ln();
        }
        Ok(true)
    }

    /// The fastest candidate for all products. The first one is the usual one, which others must
    /// beat by some margin.
    fn fastest<S: Copy + PartialEq + Debug>(
        &mut self,
        candidates: &[S],
        products: &[(Product, f64)],
        prepare: impl Fn(&mut Pipelines, &Product, S) -> Result<Vec<Dispatch>>,
    ) -> Result<S> {
        let mut pipelines = Pipelines::deferred(self.gpu);
        let mut works = |product: &Product, candidates: &[S]| -> Result<Vec<Work>> {
            let work = |shape: &S| Ok((prepare(&mut pipelines, product, *shape)?, product.tokens));
            let works = candidates.iter().map(work).collect::<Result<_>>()?;
            pipelines.finish().map(|()| works)
        };
        if self.is_late() {
            return Ok(candidates[0]);
        }
        let seconds = self.least(&works(&products[0].0, candidates)?, 1)?;
        let mut order: Vec<usize> = (1..candidates.len()).collect();
        order.sort_by(|a, b| seconds[*a].total_cmp(&seconds[*b]));
        order.truncate(SECOND_ROUND);
        let left: Vec<S> = std::iter::once(0).chain(order).map(|number| candidates[number]).collect();
        // The weighted geometric mean: what counts is by how much each gets faster.
        let mut score = vec![0.0; left.len()];
        for (product, weight) in products {
            let seconds = self.least(&works(product, &left)?, TURNS)?;
            score.iter_mut().zip(seconds).for_each(|(score, seconds)| *score += weight * seconds.ln());
        }
        let score: Vec<_> = score.into_iter().map(f64::exp).collect();
        Ok(left[winner(&left, &score)])
    }

    /// The least seconds of a dispatch of each work, in so many turns; infinite where time was up.
    fn least(&mut self, works: &[Work], turns: usize) -> Result<Vec<f64>> {
        let mut least = vec![f64::INFINITY; works.len()];
        let mut look = self.patience.warm(self.gpu);
        for _ in 0..turns {
            for ((dispatches, tokens), least) in works.iter().zip(&mut least) {
                os::check_interrupt()?;
                if self.is_late() {
                    // Those that had no turn would lose to those that had one.
                    return Ok(vec![f64::INFINITY; works.len()]);
                }
                let seconds = seconds_each(self.gpu, &mut self.watch, dispatches, *tokens, look)?;
                *least = least.min(seconds);
                look = self.patience.look;
            }
        }
        Ok(least)
    }

    fn is_late(&self) -> bool {
        self.start.elapsed() > self.patience.all
    }
}

/// The fastest, or the first unless another is faster by some margin.
fn winner<S: Debug>(candidates: &[S], seconds: &[f64]) -> usize {
    for (shape, seconds) in candidates.iter().zip(seconds) {
        log::debug!("{:9.2} us {shape:?}", seconds * 1e6);
    }
    let fastest = (0..seconds.len()).min_by(|a, b| seconds[*a].total_cmp(&seconds[*b])).unwrap_or(0);
    if seconds[fastest] < MARGIN * seconds[0] { fastest } else { 0 }
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

    #[test]
    fn the_usual_shape_stays_unless_another_is_clearly_faster() {
        let infinite = f64::INFINITY;
        for (seconds, expected) in [
            (vec![1.0, 0.5, 0.4], 2),
            (vec![1.0, 0.98, 2.0], 0),
            (vec![1.0, 0.96], 1),
            (vec![infinite, infinite], 0),
            (vec![1.0], 0),
        ] {
            assert_eq!(winner(&vec![(); seconds.len()], &seconds), expected, "{seconds:?}");
        }
        assert_eq!(first(3, vec![1, 3, 2]), [3, 1, 2]);
    }
}
