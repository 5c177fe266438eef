//! Seeds of everything that is text: tokenizers, templates, requests, grammars, lists, the hub's answers.

use std::fs;

use serde_json::{Value, json};

use super::super::bundle::{Bundle, Item};
use crate::common::fixture;

pub(super) fn generation() -> Vec<Bundle> {
    let generation = json!({
        "eos_token_id": [1, 2], "do_sample": true, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        "repetition_penalty": 1.1
    });
    let config = json!({"eos_token_id": 2, "text_config": {"eos_token_id": [3]}});
    vec![Bundle::of([
        Item::new("generation_config.json", generation.to_string()),
        Item::new("config.json", config.to_string()),
    ])]
}

/// A small vocabulary of letters, some merges, and signs.
fn byte_pairs() -> Value {
    let letters = "abcdefghijklmnopqrstuvwxyzOĠ,.!?'</>_|2+".chars().map(String::from);
    let mut vocab: Vec<String> = letters.collect();
    let merges = ["a b", "Ġ a", "t h", "th e", "o n"];
    vocab.extend(merges.map(|pair| pair.replace(' ', "")));
    let ids: serde_json::Map<String, Value> =
        vocab.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": !special, "special": special})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(60, "</s>", true), added(61, "<think>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+"},
             "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [60], "tokens": ["</s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": ids, "merges": merges}
    })
}

/// The same in SentencePiece's manner.
fn sentence_pieces() -> Value {
    let mut json = byte_pairs();
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    json["pre_tokenizer"] = Value::Null;
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    json["model"]["byte_fallback"] = json!(true);
    json["model"]["unk_token"] = json!("?");
    let ids = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    for byte in 0..=255u32 {
        ids.insert(format!("<0x{byte:02X}>"), json!(100 + byte));
    }
    ids.insert("▁".into(), json!(99));
    json
}

pub(super) fn tokenizers() -> Vec<Bundle> {
    let config = json!({
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": {"content": "</s>"},
        "eos_token": "</s>", "chat_template": "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    });
    let file = |name: &str, value: &Value| Item::new(name, value.to_string());
    let small: Vec<Bundle> = [byte_pairs(), sentence_pieces()]
        .iter()
        .map(|json| Bundle::of([file("tokenizer.json", json), file("tokenizer_config.json", &config)]))
        .collect();
    let other = |model: Value| {
        let mut json = byte_pairs();
        json["model"] = model;
        Bundle::of([file("tokenizer.json", &json)])
    };
    let vocab = byte_pairs()["model"]["vocab"].clone();
    let merges = "#version: 0.2\na b\nt h\nth e\n";
    let vocab_file = file("vocab.json", &vocab);
    let old = [vocab_file, Item::new("merges.txt", merges), file("tokenizer_config.json", &config)];
    let mut seeds = small;
    seeds.extend([
        other(json!({"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
                     "max_input_chars_per_word": 100, "vocab": vocab})),
        other(json!({"type": "WordLevel", "unk_token": "?", "vocab": vocab})),
        other(json!({"type": "Unigram", "unk_id": 0, "vocab": [["?", 0.0], ["a", -1.0], ["▁b", -2.5]]})),
        Bundle::of(old),
        Bundle::of([Item::new("tokenizer.model", sentence_piece_model())]),
    ]);
    seeds
}

/// A `ModelProto` of SentencePiece: control tokens, bytes and some letters, by merges.
fn sentence_piece_model() -> Vec<u8> {
    let mut out = Vec::new();
    let mut field = |number: u8, bytes: &[u8]| {
        out.extend([number << 3 | 2, bytes.len() as u8]);
        out.extend_from_slice(bytes);
    };
    let piece = |text: &str, score: f32, kind: u8| {
        let text = [&[0x0a, text.len() as u8], text.as_bytes()].concat();
        [&text[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]].concat()
    };
    for (text, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
        field(1, &piece(text, 0.0, kind));
    }
    for byte in 0..=255u8 {
        field(1, &piece(&format!("<0x{byte:02X}>"), 0.0, 6));
    }
    for (rank, text) in ["▁", "a", "b", "ab", "▁ab", "t", "h", "th"].iter().enumerate() {
        field(1, &piece(text, -(rank as f32), 1));
    }
    field(2, &[0x18, 2]);
    out
}

pub(super) fn templates() -> Vec<Bundle> {
    let read = |name: &str| -> Value {
        let text = fs::read(fixture("chat").join(name)).expect("the fixture");
        serde_json::from_slice(&text).expect("JSON")
    };
    let (families, dialect) = (read("families.json"), read("dialect.json"));
    let chats = families["chats"].as_array().expect("chats");
    let source = |family: &Value| family["template"].as_str().expect("a template").to_owned();
    let of = |source: String, chat: &Value| {
        Bundle::of([Item::new("template.jinja", source), Item::new("chat.json", chat.to_string())])
    };
    let mut seeds: Vec<Bundle> = families["families"]
        .as_array()
        .expect("families")
        .iter()
        .zip(chats.iter().cycle().skip(1).step_by(2))
        .map(|(family, chat)| of(source(family), chat))
        .collect();
    for case in dialect["cases"].as_array().expect("cases") {
        let text = case["template"].as_str().or(case[0].as_str()).unwrap_or("{{ messages }}");
        seeds.push(of(text.to_owned(), &dialect["chat"]));
    }
    seeds
}

pub(super) fn bodies() -> Vec<Bundle> {
    let tool = json!({"type": "function", "function": {"name": "add", "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/n"}},
                       "required": ["a"], "$defs": {"n": {"type": "number"}}}}});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}]});
    let schema = json!({"type": "object", "properties": {"x": {"type": "string", "maxLength": 5}}});
    let user = json!({"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]});
    let chats = [
        json!({"messages": [{"role": "system", "content": "Be brief."}, user], "max_tokens": 5, "temperature": 0.5,
               "top_p": 0.9, "top_k": -1, "min_p": 0.1, "seed": -1, "n": 2, "stop": ["a", "b"], "stream": true,
               "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 3,
               "logit_bias": {"5": -100, "7": 1.5}, "frequency_penalty": 0.5, "presence_penalty": -0.5}),
        json!({"messages": [user, call, {"role": "tool", "tool_call_id": "c1", "content": "1"}], "tools": [tool],
               "tool_choice": "auto", "parallel_tool_calls": false}),
        json!({"messages": [user], "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "add"}}}),
        json!({"messages": [user], "tools": [tool, tool], "tool_choice": "required"}),
        json!({"messages": [user], "response_format": {"type": "json_schema",
               "json_schema": {"name": "s", "schema": schema}}}),
        json!({"messages": [user], "guided_regex": "[ab]{2,5}", "chat_template_kwargs": {"enable_thinking": false}}),
        json!({"messages": [user], "structured_outputs": {"choice": ["yes", "no"]},
               "documents": [{"title": "t", "text": "u"}]}),
        json!({"messages": [user], "grammar": "start: \"a\" b\nb: /[0-9]+/", "repetition_penalty": 1.1,
               "ignore_eos": true, "timeline": true}),
        json!({"messages": [user, {"role": "assistant", "content": "It is"}], "continue_final_message": true,
               "add_generation_prompt": false}),
    ];
    let completions = [
        json!({"prompt": "Once", "max_tokens": 3, "echo": true, "n": 2, "best_of": 2}),
        json!({"prompt": ["a", "b"], "logprobs": 2, "suffix": null}),
        json!({"prompt": [[1, 2, 3], [4]], "guided_json": schema}),
        json!({"prompt": [1, 2, 599]}),
    ];
    let of = |name: &'static str| move |body: &Value| Bundle::of([Item::new(name, body.to_string())]);
    chats.iter().map(of("chat.json")).chain(completions.iter().map(of("completion.json"))).collect()
}

pub(super) fn grammars() -> Vec<Bundle> {
    let schemas = [
        json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "multipleOf": 3},
            "b": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "minItems": 1, "maxItems": 3}},
            "required": ["a"], "additionalProperties": false}),
        json!({"anyOf": [{"const": "x"}, {"enum": [1, null, true]}, {"type": "string", "format": "date-time"}]}),
        json!({"$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
            "$ref": "#/$defs/tree"}),
        json!({"allOf": [{"type": "object", "properties": {"k": {"type": "number", "exclusiveMaximum": 2.5}}},
            {"required": ["k"]}]}),
        json!({"type": ["string", "null"], "minLength": 2, "maxLength": 6}),
    ];
    let regexes = ["[ab]{2,5}(x|y)*", "\\d{1,3}(\\.\\d+)?", "(?i)yes|no", "[^\"\\\\]*", "a|b|c&~d"];
    let rules = [
        "start: \"a\" b\nb: /[0-9]+/ | \"[\" b \"]\"",
        "start: json\njson: %json {\"type\": \"object\"}",
        "start: X+\nX: /x{1,3}/\n%ignore / +/",
        "start: \"<\" <[5]> t[max_tokens=3] \">\"\nt: /.*/",
        "start: a{2,4}\na[stop=\"z\"]: /[a-z]*/",
    ];
    let schemas = schemas.iter().map(|schema| Item::new("schema.json", schema.to_string()));
    let regexes = regexes.iter().map(|regex| Item::new("regex.txt", *regex));
    let rules = rules.iter().map(|rules| Item::new("rules.lark", *rules));
    schemas.chain(regexes).chain(rules).map(|item| Bundle::of([item])).collect()
}

pub(super) fn calls() -> Vec<Bundle> {
    let texts = [
        "Well.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"</tool_call>\"]}}\n</tool_call>\nDone.",
        "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}",
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {}}",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]",
        "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]f{\"a\": 2}",
        "<think>\nHm, 日本.\n</think>\n\nYes. <think>no</think>",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
    ];
    texts.map(Bundle::text).into()
}

pub(super) fn batches() -> Vec<Bundle> {
    let chat = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "é"}], "stream": true}});
    let text = json!({"custom_id": "b", "url": "/v1/completions", "body": {"prompt": "x"}});
    let answer = json!({"id": "x", "custom_id": "a", "response": {"status_code": 200}, "error": null});
    let requests = Item::new("requests.jsonl", format!("{chat}\n\n{text}\n"));
    let whole = Item::new("answers.jsonl", format!("{answer}\n"));
    let torn = Item::new("answers.jsonl", format!("{answer}\n{{\"custom_id\": \"b"));
    vec![Bundle::of([requests.clone(), whole]), Bundle::of([requests, torn])]
}

pub(super) fn benches() -> Vec<Bundle> {
    let row = |test: &str, mean: f64, budget: u64| {
        json!({"model": "m <&> x", "batch": 1, "test": test, "repetitions": [mean, mean + 1.0],
               "tokens_per_second": mean, "tokens_per_second_sd": 0.7, "vram_budget_bytes": budget, "n_depth": 0})
    };
    let a = json!([row("pp8", 10.0, 1 << 30), row("tg4 @ d8", 3.5, 2 << 30)]);
    let b = json!([row("pp8", 12.0, 1 << 30), row("tg4 @ d8", 1e6, 3 << 30)]);
    let chat = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]});
    vec![Bundle::of([
        Item::new("a.json", a.to_string()),
        Item::new("b.json", b.to_string()),
        Item::new("chat.json", chat.to_string()),
    ])]
}

pub(super) fn hub() -> Vec<Bundle> {
    let lfs = json!({"sha256": "ab", "size": 9});
    let file = |name: &str| json!({"rfilename": name, "size": 12, "blobId": "0123", "lfs": lfs});
    let of = |names: &[&str]| {
        let files: Vec<Value> = names.iter().map(|name| file(name)).collect();
        Bundle::text(json!({"sha": "0123456789abcdef", "siblings": files}).to_string())
    };
    vec![
        of(&[
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "additional_chat_templates/tool_use.jinja",
        ]),
        of(&[
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "vocab.json",
            "merges.txt",
        ]),
        of(&["a-Q4_K_M-00001-of-00002.gguf", "a-Q4_K_M-00002-of-00002.gguf", "a.Q8_0.gguf", "mmproj.gguf"]),
    ]
}

pub(super) fn sizes() -> Vec<Bundle> {
    let words = [
        "6GiB",
        "1.5g",
        "500 MB",
        "12GB/s",
        "3.5GiB/s",
        "0",
        "18446744073709551614",
        "org/name:Q4_K_M",
        "org/name:main",
        "run ./model --vram 6GiB -p x --temperature 0.5",
        "plan --dummy llama-2-13b --link 12GB/s --ram 16GiB",
        "bench -p 64 -n 32 -b 1,4 -d 0,4096 -o json",
        "serve m --parallel 4 --context 256",
    ];
    words.map(Bundle::text).into()
}
