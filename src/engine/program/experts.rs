//! Dispatches of mixtures of experts: the choice, the way into the chosen ones and back, the sum.

use super::decode::Groups;
use super::{Builder, Setting, UnitMemory, stride};
use crate::engine::Class;
use crate::engine::experts::record_bytes;
use crate::engine::fuse::Norm;
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Pipelines};
use crate::kernels::experts::{self, Records};
use crate::kernels::matvec_core::{Operation, TOKENS_PER_GROUP_MAX};
use crate::kernels::{
    self, experts_down, experts_exact, experts_gated, experts_sort, experts_sum, experts_sum_q8, route,
    router, router_route,
};
use crate::model::experts::{Experts, Gate, Router, Routing, Scoring, Stack};
use crate::model::{Activation, Tensor};

/// Experts of a unit that a kernel binds together.
struct Window<'a> {
    records: Records,
    home: Binding<'a>,
    /// Copies of some; anything where there are none.
    slots: Binding<'a>,
}

impl Builder<'_> {
    fn experts(&self) -> &Experts {
        self.decoder.experts.as_ref().expect("a decoder with operations on experts has their sizes")
    }

    fn router_parts<'a>(
        &'a self,
        router: &Router,
        setting: &Setting<'a>,
    ) -> (router::Spec, router::Args<'a>) {
        let (memory, tensor) = (setting.memory, &setting.tensors[router.weight]);
        let spec = router::Spec {
            rows: tensor.rows,
            cols: tensor.cols,
            bias: router.bias.is_some(),
            eps: router.eps,
        };
        let norm = memory.codes(router.norm);
        let args = router::Args {
            step: self.step(false),
            x: self.f32(Activation::Residual),
            bias: router.bias.map_or(norm.clone(), |bias| memory.codes(bias)),
            norm,
            weights: memory.codes(router.weight),
            y: self.f32(Activation::Router),
        };
        (spec, args)
    }

    pub(super) fn router(
        &self,
        pipelines: &mut Pipelines,
        router: &Router,
        setting: &Setting<'_>,
    ) -> Result<Dispatch> {
        let (spec, args) = self.router_parts(router, setting);
        router::dispatch(pipelines, &spec, &args)
    }

    /// Both the router's values and the choice, for passes of one token.
    pub(super) fn router_route(
        &self,
        pipelines: &mut Pipelines,
        (router, routing): (&Router, &Routing),
        setting: &Setting<'_>,
    ) -> Result<Dispatch> {
        let (router_spec, router) = self.router_parts(router, setting);
        let (route_spec, mut route) = self.route_parts(routing, setting);
        if routing.correction.is_none() {
            // The values are written here.
            route.correction = router.norm.clone();
        }
        let spec = router_route::Spec { router: router_spec, route: route_spec };
        router_route::dispatch(pipelines, &spec, &router_route::Args { router, route })
    }

    /// Choices that share one reading of an expert in a class of passes, and where they are sorted.
    fn tiles(&self, class: Class) -> Option<(u32, Binding<'_>, u32)> {
        let (tiles, room) = self.workspace.expert_tiles()?;
        let tokens = if class == Class::Decode { self.batch } else { self.workspace.inputs.chunk() };
        let tile = tokens.next_power_of_two().min(TOKENS_PER_GROUP_MAX);
        (tile > 1).then_some((tile, tiles, room))
    }

    fn route_parts<'a>(&'a self, routing: &Routing, setting: &Setting<'a>) -> (route::Spec, route::Args<'a>) {
        let experts = self.experts();
        let groups = routing.groups;
        let ([places, counts], slots) = self.tables.of(setting.unit, setting.class);
        let spec = route::Spec {
            experts: experts.num_experts,
            chosen: experts.num_experts_per_tok,
            scoring: match routing.scoring {
                Scoring::Softmax => route::Scoring::Softmax,
                Scoring::Sigmoid => route::Scoring::Sigmoid,
                Scoring::SoftmaxOfChosen => route::Scoring::SoftmaxOfChosen,
            },
            corrected: routing.correction.is_some(),
            n_group: groups.map_or(1, |groups| groups.n_group),
            topk_group: groups.map_or(1, |groups| groups.topk_group),
            best: groups.map_or(1, |groups| groups.best),
            normalise: routing.normalise,
            scale: routing.scale,
            shared_gate: experts.shared_gate,
            slots,
            counts: self.tiles(setting.class).is_none(),
        };
        let logits = self.f32(Activation::Router);
        let args = route::Args {
            step: self.step(false),
            correction: routing.correction.map_or(logits.clone(), |tensor| setting.memory.codes(tensor)),
            logits,
            places,
            routes: self.f32(Activation::Routes),
            counts,
        };
        (spec, args)
    }

    /// The choice of experts, and the choices sorted where one reading of an expert serves several.
    pub(super) fn route(
        &self,
        pipelines: &mut Pipelines,
        routing: &Routing,
        setting: &Setting<'_>,
    ) -> Result<Vec<Dispatch>> {
        let (spec, args) = self.route_parts(routing, setting);
        let (experts, counts) = (self.experts(), args.counts.clone());
        let mut dispatches = vec![route::dispatch(pipelines, &spec, &args)?];
        if let Some((tile, tiles, room)) = self.tiles(setting.class) {
            let (chosen, choices) = (experts.num_experts_per_tok, experts.choices());
            let spec = experts_sort::Spec { experts: experts.num_experts, chosen, choices, tile, room };
            let args = experts_sort::Args {
                step: self.step(false),
                routes: self.f32(Activation::Routes),
                tiles,
                counts,
            };
            dispatches.push(experts_sort::dispatch(pipelines, &spec, &args)?);
        }
        Ok(dispatches)
    }

    /// A matrix of a unit's experts, in as many parts as its adapter's bindings ask for.
    fn windows<'a>(
        &'a self,
        pipelines: &Pipelines,
        (stack, matrix): (&Stack, Tensor),
        setting: &Setting<'a>,
    ) -> Vec<Window<'a>> {
        let memory: &UnitMemory<'a> = setting.memory;
        let (sections, each) = (memory.sections, stack.tensors_each());
        let start = |expert: u32| sections[expert as usize * each].codes.start;
        let last = sections[stack.count as usize * each - 1].clone();
        let end = |expert: u32| match expert {
            _ if expert == stack.count => last.codes.end.max(last.scales.end),
            _ => start(expert),
        };
        let record_bytes = record_bytes(stack, sections);
        let most = pipelines.gpu().facts.limits.max_storage_buffer_binding_size / record_bytes;
        let most = u32::try_from(most).unwrap_or(stack.count).clamp(1, stack.count);
        let slots = self.tables.slots(setting.unit, setting.class);
        let (tile, room) = self.tiles(setting.class).map_or((1, 0), |(tile, _, room)| (tile, room));
        let bias_at = stack.bias.then(|| sections[matrix + 1].codes.start - start(0));
        let window = |first: u32| {
            let count = most.min(stack.count - first);
            let records = Records {
                first: stack.first + first,
                count,
                record_bytes,
                codes_at: sections[matrix].codes.start - start(0),
                scales_at: sections[matrix].scales.start - start(0),
                bias_at,
                kind: setting.tensors[matrix].kind,
                cached: slots.is_some(),
                far: false,
                chosen: self.experts().num_experts_per_tok,
                choices: self.experts().choices(),
                tile,
                room,
            };
            let slots = slots.clone().unwrap_or_else(|| self.tables.no_slots());
            Window { records, home: memory.buffer.part(start(first)..end(first + count)), slots }
        };
        (0..stack.count).step_by(most as usize).map(window).collect()
    }

    fn stack_args<'a>(&'a self, window: &Window<'a>, class: Class) -> experts::Stack<'a> {
        let Window { home, slots, .. } = window;
        let routes = self.tiles(class).map_or(self.f32(Activation::Routes), |(_, tiles, _)| tiles);
        experts::Stack { home: home.clone(), slots: slots.clone(), routes }
    }

    /// Gates and values of all tokens in their experts, and what becomes of them. With `eps` they
    /// read the stream's norm where a fused one left it, without its factor.
    pub(super) fn experts_in(
        &self,
        pipelines: &mut Pipelines,
        stack: &Stack,
        setting: &Setting<'_>,
        eps: Option<f32>,
    ) -> Result<Vec<Dispatch>> {
        let matrix = stack.gate_up();
        let tensor = &setting.tensors[matrix];
        let (width, cols) = (self.experts().moe_intermediate_size, tensor.cols);
        let gate = match stack.gate {
            Gate::SwiGlu => experts::Gate::SwiGlu,
            Gate::Clamped { alpha, limit } => experts::Gate::Clamped { alpha, limit },
        };
        let windows = self.windows(pipelines, (stack, matrix), setting);
        let dispatch = |window: Window<'_>| {
            let (step, stack) = (self.step(false), self.stack_args(&window, setting.class));
            if let Some([out_codes, out_scales]) = self.workspace.expert_groups() {
                let tile = self.shapes.matvecs.of(Operation::Gated, [tensor.rows, cols], window.records.tile);
                let records = window.records;
                let mut spec = experts_gated::Spec { records, width, cols, gate, eps, tile };
                spec.records.far = self.tables.is_far(setting.unit, setting.class)
                    && spec.fits_far(&pipelines.gpu().facts.limits);
                let groups = if eps.is_some() { self.normed_groups() } else { self.complete_groups() };
                let Groups { codes: x_codes, scales: x_scales, squares } = groups;
                let args =
                    experts_gated::Args { step, stack, x_codes, x_scales, squares, out_codes, out_scales };
                return experts_gated::dispatch(pipelines, &spec, &args);
            }
            let spec = experts_exact::Spec {
                records: window.records,
                width,
                cols,
                gate: Some(gate),
                strides: [kernels::stride(width), stride(self.decoder, Activation::ExpertGated)],
                shape: self.shapes.matvec_exact.of(tensor.rows, cols),
            };
            let (x, y) = (self.f32(Activation::Normed), self.f32(Activation::ExpertGated));
            experts_exact::dispatch(pipelines, &spec, &experts_exact::Args { step, stack, x, y })
        };
        windows.into_iter().map(dispatch).collect()
    }

    /// What all tokens' experts give, each apart.
    pub(super) fn experts_out(
        &self,
        pipelines: &mut Pipelines,
        stack: &Stack,
        setting: &Setting<'_>,
    ) -> Result<Vec<Dispatch>> {
        let matrix = stack.down();
        let tensor = &setting.tensors[matrix];
        let (rows, cols) = (tensor.rows, tensor.cols);
        let windows = self.windows(pipelines, (stack, matrix), setting);
        let dispatch = |window: Window<'_>| {
            let (step, stack) = (self.step(false), self.stack_args(&window, setting.class));
            let (records, y) = (window.records, self.f32(Activation::ExpertOut));
            if let Some([x_codes, x_scales]) = self.workspace.expert_groups() {
                let tile = self.shapes.matvecs.of(Operation::Int8, [rows, cols], records.tile);
                let mut spec = experts_down::Spec { records, rows, cols, tile };
                spec.records.far = self.tables.is_far(setting.unit, setting.class)
                    && spec.fits_far(&pipelines.gpu().facts.limits);
                let args = experts_down::Args { step, stack, x_codes, x_scales, y };
                return experts_down::dispatch(pipelines, &spec, &args);
            }
            let spec = experts_exact::Spec {
                records,
                width: rows,
                cols,
                gate: None,
                strides: [kernels::stride(rows), stride(self.decoder, Activation::ExpertOut)],
                shape: self.shapes.matvec_exact.of(rows, cols),
            };
            let x = self.f32(Activation::ExpertGated);
            experts_exact::dispatch(pipelines, &spec, &experts_exact::Args { step, stack, x, y })
        };
        windows.into_iter().map(dispatch).collect()
    }

    /// The sum of what the experts gave, added to the stream.
    pub(super) fn experts_sum(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let spec = experts_sum::Spec { cols: self.decoder.hidden_size, choices: self.experts().choices() };
        let args = experts_sum::Args {
            step: self.step(false),
            routes: self.f32(Activation::Routes),
            x: self.f32(Activation::ExpertOut),
            y: self.f32(Activation::Residual),
        };
        experts_sum::dispatch(pipelines, &spec, &args)
    }

    /// The same, and the groups that the next norm leaves of it.
    pub(super) fn experts_sum_q8(&self, pipelines: &mut Pipelines, next: Norm) -> Result<Dispatch> {
        let spec = experts_sum_q8::Spec { cols: self.decoder.hidden_size, choices: self.experts().choices() };
        let Groups { codes, scales, squares } = self.normed_groups();
        let args = experts_sum_q8::Args {
            step: self.step(false),
            routes: self.f32(Activation::Routes),
            x: self.f32(Activation::ExpertOut),
            norm: self.norms.weight(next),
            y: self.f32(Activation::Residual),
            codes,
            scales,
            squares,
        };
        experts_sum_q8::dispatch(pipelines, &spec, &args)
    }
}
