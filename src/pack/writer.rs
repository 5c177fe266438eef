//! Packs a checkpoint: reads its rows, quantises them on all cores, never holds a whole tensor.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::container::{self, Chunk, Watch};
use super::head;
use super::layout::{Source, TensorSpec, UnitSpec};
use crate::checkpoint::{Checkpoint, Dtype, Lines};
use crate::error::{Error, Result};
use crate::quant::encode_row;

/// Packs `units` of a checkpoint, and `files` as `(name, bytes)`, into `dst`, which appears only
/// when it is complete: a failed or interrupted run leaves nothing behind and an older `dst` as
/// it was. Rows are coded in parallel; memory stays below 100 MiB plus a few rows a thread, and 512 MiB
/// for tensors that a checkpoint has the other way round.
///
/// # Errors
/// A source that is missing or has another shape or dtype than expected, or a tensor that would be
/// left out (checked before any work), a weight that is not finite or does not fit its kind, a disk without room, or
/// [`Error::Interrupted`].
pub fn write(
    dst: &Path,
    units: &[UnitSpec],
    source: &Checkpoint,
    files: &[(String, Vec<u8>)],
    watch: Watch<'_>,
) -> Result<()> {
    for unit in units {
        for tensor in &unit.tensors {
            check_sources(unit, tensor, source)?;
        }
    }
    check_complete(units, source)?;
    head::check(units, source, watch)?;
    container::write(dst, units, files, &|chunk| fill(source, chunk), watch)
}

/// Parts of the names of tensors in old checkpoints that follow from the configuration.
const DERIVED: [&str; 6] = [
    ".rotary_emb.",
    "decoder.version",
    // The causal mask, and what it hides things with.
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
];

/// Refuses a checkpoint with a tensor that nothing computes with although it stands in a block, or
/// beside, or one step beside, tensors that are used: a bias, a norm, an expert or a block that the
/// configuration does not speak of. Elsewhere tensors may be left over, such as a tied head.
fn check_complete(units: &[UnitSpec], checkpoint: &Checkpoint) -> Result<()> {
    let sources = || units.iter().flat_map(|unit| &unit.tensors).flat_map(|tensor| &tensor.sources);
    let used: HashSet<_> = sources().map(|source| checkpoint.stored_name(&source.tensor)).collect();
    let places: HashSet<String> = used.iter().flat_map(|name| modules_of(name)).collect();
    let is_left_out = |name: &&str| {
        !used.contains(*name)
            && !DERIVED.iter().any(|part| name.contains(part))
            && modules_of(name).any(|place| places.contains(&place))
    };
    match checkpoint.names().find(is_left_out) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported(format!(
            "tensor `{name}` of {}: config.json does not say what it is for, and without it the model \
             would compute something else",
            checkpoint.folder().display()
        ))),
    }
}

/// The modules that a tensor is in, innermost two and the block, whatever their numbers:
/// `model.layers.*.mlp.up_proj`, `model.layers.*.mlp` and `model.layers.*`.
fn modules_of(name: &str) -> impl Iterator<Item = String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = name.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
    let block = parts.iter().position(|part| *part == "*").map(|number| number + 1);
    let innermost = (1..=2).filter_map(|up| parts.len().checked_sub(up).filter(|n| *n > 0));
    innermost.chain(block).map(|n| parts[..n].join(".")).collect::<Vec<_>>().into_iter()
}

/// Every source must have the expected shape, and together they must make up the tensor.
fn check_sources(unit: &UnitSpec, tensor: &TensorSpec, checkpoint: &Checkpoint) -> Result<()> {
    let mut weights = 0;
    for source in &tensor.sources {
        let Source { tensor: name, shape, rows, .. } = source;
        let info = checkpoint.require(name)?;
        let path = checkpoint.file_of(info);
        if info.shape != *shape {
            let problem = format!(
                "tensor `{name}` has shape {:?} but config.json implies {shape:?}; they belong to \
                 different models",
                info.shape
            );
            return Err(Error::file(path, problem));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(crate::checkpoint::unsupported_dtype(name, info.dtype));
        }
        let [height, width] = source.sides(tensor.rows == 1);
        let spans = source.order.spans(rows.clone());
        if rows.start > rows.end || spans.iter().any(|span| span.end > height) {
            let problem = format!("tensor `{name}` has no rows {rows:?}; its shape is {shape:?}");
            return Err(Error::file(path, problem));
        }
        weights += u64::from(rows.end - rows.start) * width;
        if tensor.rows > 1 && width != u64::from(tensor.cols) {
            return Err(mismatch(unit, tensor, &format!("`{name}` has {width} columns")));
        }
    }
    let expected = u64::from(tensor.rows) * u64::from(tensor.cols);
    if weights != expected {
        let found = format!("its sources have {weights} weights, not {expected}");
        return Err(mismatch(unit, tensor, &found));
    }
    Ok(())
}

/// The complaint that a tensor's sources do not make it up.
fn mismatch(unit: &UnitSpec, tensor: &TensorSpec, found: &str) -> Error {
    let TensorSpec { name, rows, cols, .. } = tensor;
    Error::Unsupported(format!("tensor `{name}` of unit `{}` is [{rows}, {cols}] but {found}", unit.name))
}

/// Reads and codes a chunk's rows.
fn fill(checkpoint: &Checkpoint, chunk: &mut Chunk<'_>) -> Result<()> {
    if chunk.tensor.rows == 1 { fill_vector(checkpoint, chunk) } else { fill_matrix(checkpoint, chunk) }
}

/// A vector joins its sources' elements.
fn fill_vector(checkpoint: &Checkpoint, chunk: &mut Chunk<'_>) -> Result<()> {
    let (mut row, mut part) = (Vec::new(), Vec::new());
    for Source { tensor, order, rows, affine, .. } in &chunk.tensor.sources {
        // Those rows of the tensor that have the elements.
        let cols = checkpoint.require(tensor)?.cols().max(1);
        let spans = order.spans(rows.clone());
        let first = spans.iter().map(|span| span.start).min().unwrap_or(0) / cols;
        let end = spans.iter().map(|span| span.end).max().unwrap_or(0).div_ceil(cols);
        checkpoint.read_rows(tensor, first..end, &mut part)?;
        let taken = rows.clone().map(|index| part[(order.row(index) - first * cols) as usize]);
        row.extend(taken.map(|x| x * affine.times + affine.plus));
    }
    encode_row(chunk.tensor.kind, &row, chunk.codes, chunk.scales).map_err(|bad| {
        let names: Vec<_> = chunk.tensor.sources.iter().map(|s| s.tensor.as_str()).collect();
        Error::NonFinite(format!("tensor `{}`, {bad}", names.join("` + `")))
    })
}

/// A matrix stacks its sources' rows.
fn fill_matrix(checkpoint: &Checkpoint, chunk: &mut Chunk<'_>) -> Result<()> {
    let TensorSpec { kind, cols, sources, .. } = chunk.tensor;
    let code_bytes = kind.code_bytes(1, *cols) as usize;
    let scale_bytes = kind.scale_bytes(1, *cols) as usize;
    let mut weights = Vec::new();
    let mut start = 0;
    let mut done = 0;
    for source in sources {
        let count = source.rows.end - source.rows.start;
        let wanted = chunk.rows.start.clamp(start, start + count) - start
            ..chunk.rows.end.clamp(start, start + count) - start;
        start += count;
        let indices = source.rows.start + wanted.start..source.rows.start + wanted.end;
        let spans = source.order.spans(indices);
        let first = done;
        for rows in &spans {
            let count = (rows.end - rows.start) as usize;
            let lines = Lines { range: rows.clone(), transposed: source.transposed, ordered: source.ordered };
            let codes = &mut chunk.codes[done * code_bytes..][..count * code_bytes];
            let scales = &mut chunk.scales[done * scale_bytes..][..count * scale_bytes];
            if !checkpoint.read_codes(&source.tensor, &lines, *kind, [codes, scales])? {
                break;
            }
            done += count;
        }
        // All of a source's rows have codes that can be moved, or none has.
        if done > first || wanted.is_empty() {
            continue;
        }
        read_floats(checkpoint, source, &spans, &mut weights)?;
        for (row, number) in weights.chunks_exact(*cols as usize).zip(spans.into_iter().flatten()) {
            let codes = &mut chunk.codes[done * code_bytes..][..code_bytes];
            let scales = &mut chunk.scales[done * scale_bytes..][..scale_bytes];
            encode_row(*kind, row, codes, scales).map_err(|bad| {
                Error::NonFinite(format!("tensor `{}`, row {number}, {bad}", source.tensor))
            })?;
            done += 1;
        }
    }
    Ok(())
}

/// Replaces `out` by rows of a source.
fn read_floats(
    checkpoint: &Checkpoint,
    source: &Source,
    spans: &[Range<u64>],
    out: &mut Vec<f32>,
) -> Result<()> {
    let mut part = Vec::new();
    out.clear();
    if source.transposed && spans.len() > 1 {
        // One walk over the tensor for all of them, and for what lies between.
        let first = spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = spans.iter().map(|span| span.end).max().unwrap_or(0);
        checkpoint.read_columns(&source.tensor, first..end, &mut part)?;
        let height = part.len() / (end - first) as usize;
        for row in spans.iter().cloned().flatten() {
            out.extend_from_slice(&part[(row - first) as usize * height..][..height]);
        }
        return Ok(());
    }
    for rows in spans {
        match source.transposed {
            true => checkpoint.read_columns(&source.tensor, rows.clone(), &mut part)?,
            false => checkpoint.read_rows(&source.tensor, rows.clone(), &mut part)?,
        }
        if let Some(order) = checkpoint.column_order(&source.tensor).filter(|_| source.ordered) {
            put_in_order(&mut part, order);
        }
        out.append(&mut part);
    }
    Ok(())
}

/// Puts the columns of rows in another order.
fn put_in_order(weights: &mut [f32], order: &[u32]) {
    let mut before = Vec::new();
    for row in weights.chunks_exact_mut(order.len()) {
        before.clear();
        before.extend_from_slice(row);
        for (value, column) in row.iter_mut().zip(order) {
            *value = before[*column as usize];
        }
    }
}
