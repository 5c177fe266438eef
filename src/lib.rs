//! Runs language models larger than the GPU's memory, on any vendor's GPU, through wgpu.
//!
//! 4-bit weights stream from disk through host memory into a small ring of GPU buffers, half a
//! transformer block at a time, while the GPU computes with what has already arrived. The idea is
//! that of *PIPO: Pipelined Offloading for Efficient Inference on Consumer Devices*
//! (arXiv 2504.03664). Time for one pass over a model is
//!
//! ```text
//! T = max(bytes streamed / link rate, GPU time)        tokens/s = tokens decided per pass / T
//! ```
//!
//! so everything here serves one of three ends: keep the link full, keep bytes from having to
//! travel, and let every pass decide many tokens.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | unit | what travels and computes together: `block.N.attention`, `block.N.mlp`, `head` (in pieces where it is large), and the embedding table, of which only the rows of a pass travel |
//! | home | where a unit's weights live between uses ([`plan::Home`]): in GPU memory, in pinned host memory, or in the packed file; and where a block's KV cache does, in one of the first two |
//! | route | how a travelling unit reaches GPU memory ([`pipeline::Route`]); or decode kernels read it in pinned memory where it is, which is called direct |
//! | plan | homes, sizes and the predicted speed, from sizes and rates alone ([`plan::Plan`]) |
//! | ring, slot, ticket, lease | the travelling unit with the next ticket fills slot `ticket % depth`; a lease lends a filled slot to kernels ([`pipeline::ring`]) |
//! | read-ahead | the ring before the ring: units at home in the file fill slots of host memory before they travel ([`pipeline::read_ahead`]) |
//! | pass | one walk over all units, for one or many tokens ([`engine::Pass`]) |
//! | chain | decode passes submitted together, or one before the last is read, each reading what the one before found most likely ([`engine::Engine::submit_chain`]) |
//! | packed model | the on-disk form: units in execution order, 4 KiB aligned, checksummed ([`pack`]) |
//!
//! # Layers
//!
//! Imports go down only; `tests/tidy.rs` holds that.
//!
//! ```text
//! cli          verbs, options, progress, figures
//! serve        requests become jobs; the scheduler that shares passes among them; HTTP
//! session      timelines of tokens that share passes: read prompts, choose tokens, score a text
//! engine       the loaded model: all memory, prepared dispatches, the walk over units
//! model        a family as data: config.json -> units and operations
//! pipeline     tickets and slots; threads that carry pieces      kernels   shader + description
//! gpu          every wgpu object, booked buffers, prepared dispatches; Vulkan-only code
//! -----------------------------------------------------------------------------------------
//! plan  quant  checkpoint  pack  text  hub  sampler  trace  os  size  error   (no wgpu in these)
//! ```
//!
//! # The way of a token
//!
//! 1. [`checkpoint`] reads tensors by name from a Hugging Face folder or a GGUF file ([`hub`] brings
//!    either); [`model`] says which of them make up which unit; [`pack`] quantises them ([`quant`])
//!    into one file, once, or moves the codes of those that are quantised.
//! 2. [`engine::demand`] adds up what a model needs, [`plan::plan`] decides what stays in GPU
//!    memory, [`engine::Engine::load`] takes all memory and prepares every dispatch.
//! 3. [`session::Batch`] cuts the prompts of its sequences into passes.
//!    [`engine::Engine::forward`] uploads the tokens with their angles and embedding rows, then
//!    walks the units: a resident unit's dispatches, or those that read pinned memory, are encoded
//!    as they are; a travelling unit's are encoded while it is on its way, submitted once its
//!    ticket is leased, and released after that. Loader threads never stop: when the last unit of
//!    a pass computes, the first units of the next pass are already on their way. Units at home on
//!    disk pass through a ring of their own in host memory, which runs ahead of the other
//!    ([`pipeline::read_ahead`]). A block's KV cache at home in host memory takes a ticket as well
//!    ([`pipeline::cache_ring`]): its rows are loaded before, and the new ones saved behind.
//! 4. The likeliest token, or the logits for [`sampler`], come back; [`text`] turns tokens into
//!    UTF-8 as soon as it is certain. Where nothing travels and the likeliest token is wanted, the
//!    CPU is not between two tokens at all: the embedding table is where kernels read it, several
//!    passes are one chain, and the next chain is submitted before the last one is read.
//!
//! A decode pass's dispatches are several operations each where kernels exist for that: a norm is
//! part of the matrix before it (but for the factor that all values share, which the matrix behind
//! it follows up), an MLP's function of the matrix before it, and rotation, the write to the KV
//! cache, attention over all parts of a context and the quantisation of its result are one. A
//! prompt's matrices run on matrix units where the adapter has them. Which of a kernel's shapes are
//! used is measured once for each adapter ([`kernels::Shapes`]); no bit depends on the batch, but
//! that matrix units serve the decode passes of more than 24 sequences.
//!
//! Where a block has experts, a router's unit chooses among them on the GPU, and the experts' unit has
//! them as equal records: decode kernels read the chosen ones alone, also where they are pinned. What
//! they read there they leave in slots of GPU memory, as far as there is room, in place of what was
//! chosen longest ago; the choice and the slots are one kernel's, so that the CPU has no part in it.
//!
//! # What always holds
//!
//! Each of these is a test.
//!
//! * Streamed equals resident, bit for bit, for every route, depth and choice of homes.
//! * Nothing is allocated and nothing compiled on the GPU while tokens flow; what is taken at
//!   start adds up to at most the budget.
//! * A slot is refilled as soon as its readers are done; there is no other barrier.
//! * Within a class of passes (prefill, decode), a token's bits do not depend on its neighbours.
//! * A server whose engine fails makes another one, and its texts go on bit for bit.
//! * A kernel equals an f64 reference over awkward shapes, and a perturbed input fails.
//! * What is not supported is refused by name before any work starts.
//! * stdout carries text, or the report that was asked for, and nothing else.

pub mod checkpoint;
pub mod cli;
pub mod engine;
pub mod error;
pub mod gpu;
pub mod hub;
pub mod kernels;
pub mod model;
pub mod os;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod quant;
pub mod sampler;
pub mod serve;
pub mod session;
pub mod size;
pub mod text;
pub mod trace;
