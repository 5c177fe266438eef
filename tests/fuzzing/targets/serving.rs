//! Bodies of requests, through to jobs in the queue, and the grammars that they bring.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use pipo_wgpu::error::Error;
use pipo_wgpu::sampler::SamplerOptions;
use pipo_wgpu::serve::api::{ApiError, Asked, Kind, Service};
use pipo_wgpu::serve::grammar::{Constraint, Grammar, Grammars};
use pipo_wgpu::serve::{Model, Shared};
use pipo_wgpu::text::{ChatTemplates, GenerationConfig, Piece};
use serde_json::Value;

use super::super::bundle::Bundle;
use super::{refused, text};

/// Token ids of the model that answers.
const VOCAB: u32 = 600;
/// A template with everything that requests bring.
const TEMPLATE: &str = "{%- if tools %}{{ tools | tojson }}{% endif %}\
     {%- for d in documents or [] %}{{ d.text }}{% endfor %}\
     {%- for m in messages %}<s>{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\
     {{ c.function.arguments | tojson }}</tool_call>{% endfor %}</s>{% endfor %}\
     {%- if add_generation_prompt %}<s>assistant: {% endif %}";

/// What answers.
fn service() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let special = [("eos_token".to_owned(), Value::from("</s>"))].into_iter().collect();
        let model = Model {
            name: "small".into(),
            tokenizer: text::small().clone(),
            pieces: pieces().into(),
            generation: GenerationConfig { eos_token_ids: vec![ends()[0]], ..GenerationConfig::default() },
            chat: Some(ChatTemplates::from_source(TEMPLATE.into(), special)),
            sampling: SamplerOptions::default(),
            context: 4096,
            vocab_size: VOCAB,
            created: 0,
        };
        Service::new(Arc::new(model), Arc::new(Shared::new(1 << 10)))
    })
}

fn pieces() -> Vec<Piece> {
    text::small().pieces(VOCAB).expect("pieces")
}

fn ends() -> [u32; 1] {
    ["</s>", "<|endoftext|>"].iter().find_map(|end| text::small().token_id(end)).map_or([0], |id| [id])
}

/// A body: `completion.json`, or else a chat's. What it says becomes jobs as far as there is room.
pub(super) fn body(bundle: &Bundle, _: &Path) {
    let Some(item) = bundle.items.first() else { return };
    let kind = if item.name == "completion.json" { Kind::Completion } else { Kind::Chat };
    let service = service();
    let asked: Asked = match service.understand(kind, &item.bytes) {
        Ok(asked) => asked,
        Err(error) => {
            return said(&error);
        }
    };
    let (longest, _, texts) = asked.lengths();
    assert!(longest > 0 && longest < 4096 && (1..=128).contains(&texts), "{longest} tokens, {texts} texts");
    let before = service.shared.queue.len();
    match service.begin(asked) {
        Ok(answer) => {
            assert_eq!(service.shared.queue.len(), before + texts);
            for job in std::iter::from_fn(|| service.shared.queue.pop()) {
                assert!(job.prompt.iter().all(|id| *id < VOCAB), "an id beyond the vocabulary");
            }
            drop(answer);
        }
        Err(error) => said(&error),
    }
}

fn said(error: &ApiError) {
    refused(&Error::Usage(error.message.clone()));
}

/// A grammar: `schema.json`, `regex.txt`, or else rules in Lark's notation; and a text of some tokens in it.
pub(super) fn grammar(bundle: &Bundle, _: &Path) {
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    let Some(item) = bundle.items.first() else { return };
    let grammar = match item.name.as_str() {
        "schema.json" => match serde_json::from_slice(&item.bytes) {
            Ok(schema) => Grammar::Schema(schema),
            Err(_) => return,
        },
        "regex.txt" => Grammar::Regex(item.text()),
        _ => Grammar::Lark(item.text()),
    };
    let grammars = GRAMMARS.get_or_init(|| Grammars::new(&pieces(), &ends()).expect("a vocabulary"));
    match grammars.compile(&grammar) {
        Ok(constraint) => follow(constraint),
        Err(error) => refused(&error),
    }
}

/// Writes a text of the first tokens that may come.
fn follow(mut constraint: Constraint) {
    let mut logits = vec![0.0; VOCAB as usize];
    for left in (0..24).rev() {
        logits.fill(0.0);
        if let Err(error) = constraint.mask(&mut logits, left) {
            return refused(&error);
        }
        let turn = left * 37 % VOCAB as usize;
        let allowed = |id: &usize| logits[*id] > f32::NEG_INFINITY;
        let Some(id) = (turn..VOCAB as usize).chain(0..turn).find(allowed) else {
            assert!(constraint.is_complete(), "no token may come, and the text is not at its end");
            return;
        };
        if ends().contains(&(id as u32)) {
            return;
        }
        if let Err(error) = constraint.accept(id as u32) {
            return refused(&error);
        }
        if constraint.is_complete() {
            return;
        }
    }
}
