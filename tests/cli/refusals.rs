//! What cannot work is refused: exit code 1, one line that says what to do, nothing on stdout.

use std::fs;

use serde_json::{Value, json};

use super::{Place, each};

/// What is wrong, what is done to the place, the command, and a part of the message.
type Case = (&'static str, fn(&Place), &'static str, &'static str);

const RUN: &str = "run model -p Hello -n 2";
const RUN_IDS: &str = "run model --ids 1,2 --print-ids -n 2";

fn nothing(_: &Place) {}

fn refuse(cases: &[Case]) {
    each(cases, |place, (name, prepare, line, expected)| {
        prepare(place);
        let kept = place.names(".");
        place.run(line).refused(name, expected);
        let new: Vec<_> = place.names(".").into_iter().filter(|name| !kept.contains(name)).collect();
        assert!(new.is_empty() || new == ["cache"], "{name}: left {new:?}");
        assert!(!place.names("cache").iter().any(|name| name.contains("partial")), "{name}");
    });
}

fn config(place: &Place, key: &str, value: Value) {
    place.edit_json("config.json", |config| config[key] = value);
}

fn remove(place: &Place, name: &str) {
    fs::remove_file(place.path(name)).unwrap();
}

fn pack(place: &Place) {
    place.output("pack model packed");
}

#[test]
fn models_that_cannot_be_run() {
    refuse(&[
        ("no model", nothing, "run nowhere", "nowhere"),
        ("an empty folder", |p| fs::create_dir(p.path("empty")).unwrap(), "run empty", "the folder is empty"),
        ("an empty file", |p| p.write("file", ""), "run file -p a", "found only 0 bytes"),
        ("a text file", |p| p.write("file", "Once upon a time"), "run file -p a", "file: "),
        ("a plain safetensors file", nothing, "run model/model.safetensors -p a", "not a packed model"),
        ("no config", |p| remove(p, "model/config.json"), RUN, "config.json is missing"),
        ("a config that is a list", |p| p.write("model/config.json", "[]"), RUN, "expected a JSON object"),
        ("a config cut off", |p| p.write("model/config.json", "{\"a\":"), RUN, "expected JSON"),
        ("an unknown family", |p| config(p, "model_type", json!("mamba")), RUN, "model family `mamba`"),
        ("no family", |p| config(p, "model_type", Value::Null), RUN, "`model_type` is missing"),
        ("a width of 0", |p| config(p, "hidden_size", json!(0)), RUN, "`hidden_size` should be"),
        ("a width as text", |p| config(p, "hidden_size", json!("64")), RUN, "found \"64\""),
        (
            "an endless width",
            |p| config(p, "intermediate_size", json!(1u64 << 40)),
            RUN,
            "`intermediate_size`",
        ),
        ("a wrong width", |p| config(p, "intermediate_size", json!(96)), RUN, "config.json implies [96, 64]"),
        ("uneven heads", |p| config(p, "num_key_value_heads", json!(3)), RUN, "multiple of"),
        ("an odd head", |p| config(p, "head_dim", json!(7)), RUN, "even number of columns"),
        ("too many blocks", |p| config(p, "num_hidden_layers", json!(4)), RUN, "model.layers.3."),
        ("too few blocks", |p| config(p, "num_hidden_layers", json!(1)), RUN, "does not say what it is for"),
        ("no context", |p| config(p, "max_position_embeddings", json!(0)), RUN, "`max_position_embeddings`"),
        ("a negative epsilon", |p| config(p, "rms_norm_eps", json!(-1)), RUN, "`rms_norm_eps`"),
        (
            "another activation",
            |p| config(p, "hidden_act", json!("mish")),
            RUN,
            "not supported: `hidden_act`",
        ),
        (
            "a sliding window",
            |p| config(p, "sliding_window", json!(64)),
            RUN,
            "not supported: `sliding_window`",
        ),
        (
            "quantised by others",
            |p| config(p, "quantization_config", json!({"quant_method": "gptq"})),
            RUN,
            "not supported: `quantization_config.bits`",
        ),
        (
            "an unknown rope",
            |p| config(p, "rope_parameters", json!({"rope_type": "spiral", "rope_theta": 1e4})),
            RUN,
            "spiral",
        ),
        ("no weights", |p| remove(p, "model/model.safetensors"), RUN, "found no weights"),
        (
            "weights cut off",
            |p| p.edit_bytes("model/model.safetensors", |bytes| bytes.truncate(100_000)),
            RUN,
            "its header promises a file of",
        ),
        (
            "an end token as text",
            |p| p.edit_json("generation_config.json", |config| config["eos_token_id"] = json!("end")),
            "pack model packed",
            "model: generation_config.json: expected `eos_token_id`",
        ),
        (
            "sampling that cannot be",
            |p| p.edit_json("generation_config.json", |config| config["top_p"] = json!(7)),
            RUN,
            "generation_config.json: top-p: expected a number from 0 to 1 (off), found 7; correct the file",
        ),
        (
            "a damaged tokenizer",
            |p| p.write("model/tokenizer.json", "{}"),
            RUN,
            "model: expected a Hugging Face tokenizer",
        ),
        (
            "no tokenizer",
            |p| remove(p, "model/tokenizer.json"),
            RUN,
            "model: this model has no tokenizer.json",
        ),
        (
            "no tokenizer for the output",
            |p| remove(p, "model/tokenizer.json"),
            "run model --ids 1",
            "--print-ids",
        ),
        (
            "no tokenizer for a text",
            |p| {
                remove(p, "model/tokenizer.json");
                p.write("text", "Hello");
            },
            "perplexity model text",
            "no tokenizer.json",
        ),
        (
            "a tokenizer of another model",
            |p| {
                p.edit_json("tokenizer.json", |file| {
                    file["added_tokens"][0]["id"] = json!(400);
                    let text = file.to_string().replace("[296]", "[400]");
                    *file = serde_json::from_str(&text).unwrap();
                });
            },
            RUN,
            "the tokenizer belongs to this model",
        ),
    ]);
}

#[test]
fn packed_files_that_cannot_be_run() {
    refuse(&[
        (
            "cut off",
            |p| {
                pack(p);
                p.edit_bytes("packed", |bytes| bytes.truncate(50_000));
            },
            "run packed -p a",
            "packed: ",
        ),
        (
            "a damaged unit",
            |p| {
                pack(p);
                p.edit_bytes("packed", |bytes| bytes[20_000] ^= 0x10);
            },
            "logits packed --ids 1 --out logits",
            "has checksum",
        ),
        ("of another kind", pack, "run packed -p a --weights f32", "--weights f32: packed is packed as w4"),
        ("packed again", pack, "pack packed again", "packed"),
        ("as a folder's file", pack, "run packed/model -p a", "packed/model"),
    ]);
}

#[test]
fn prompts_that_cannot_be_read() {
    refuse(&[
        ("an id too high", nothing, "run model --ids 1,300 --print-ids", "ends at 299"),
        ("the highest id", nothing, "run model --ids 4294967295 --print-ids", "id 4294967295"),
        ("an id too high for logits", nothing, "logits model --ids 300 --out logits", "ends at 299"),
        (
            "nothing to start from",
            |p| p.edit_json("tokenizer.json", |file| file["post_processor"] = Value::Null),
            "run model -n 2",
            "the prompt is empty",
        ),
        ("no prompt file", nothing, "run model --prompt-file gone", "cannot read the prompt gone"),
        ("a folder for a prompt", nothing, "run model --prompt-file model", "cannot read the prompt model"),
        (
            "no UTF-8",
            |p| p.write("prompt", b"Hell\xff"),
            "run model --prompt-file prompt",
            "prompt: expected text in UTF-8, but byte 4",
        ),
        (
            "a prompt of many megabytes",
            |p| p.write("prompt", vec![b'a'; 17 << 20]),
            "run model --prompt-file prompt",
            "at most 8.00 MiB",
        ),
        (
            "longer than the context",
            |p| p.write("prompt", "Hello, world! ".repeat(8)),
            "run model --prompt-file prompt --context 16",
            "this run can remember 16",
        ),
        (
            "longer than any context",
            |p| p.write("prompt", "Hello, world! ".repeat(80)),
            "run model --prompt-file prompt",
            "this run can remember 256",
        ),
        (
            "more logits than the context",
            nothing,
            "logits model --ids 1,2,3 --context 2 --out logits",
            "this run can remember 2",
        ),
        ("no text to score", |p| p.write("text", ""), "perplexity model text", "at least two tokens"),
        (
            "a window of one token",
            |p| p.write("text", "Hello"),
            "perplexity model text --context 1",
            "--context 1: a token is scored after",
        ),
        ("no file to score", nothing, "perplexity model gone", "cannot read gone"),
        (
            "no UTF-8 to score",
            |p| p.write("text", b"\xc3"),
            "perplexity model text",
            "expected text in UTF-8",
        ),
        (
            "an unreadable tokenizer text",
            |p| p.write("text", "Hello"),
            "perplexity model/config.json text",
            "model/config.json: ",
        ),
    ]);
    let place = Place::new();
    place
        .feed("run model -n 2", b"\xff")
        .refused("a pipe without UTF-8", "standard input: expected text in UTF-8");
}

#[test]
fn options_that_cannot_be_met() {
    refuse(&[
        ("no memory", nothing, "run model --ids 1 --print-ids --vram 0", "--vram 0 B is too small"),
        ("hardly any memory", nothing, "plan model --vram 2KiB", "needs at least"),
        ("no memory for so many slots", nothing, "plan model --vram 128KiB --depth 64", "needs at least"),
        ("more context than the model has", nothing, "plan model --context 257", "at most 256 tokens"),
        ("a GPU number too high", nothing, "plan model --adapter 99", "no adapter number 99; there are 0: "),
        (
            "an unknown GPU",
            nothing,
            "plan model --adapter nosuch",
            "no adapter named like `nosuch`; there are 0: ",
        ),
        ("a negative temperature", nothing, "run model -p a --temperature -1", "temperature"),
        ("no temperature", nothing, "run model -p a --temperature nan", "temperature"),
        ("a probability above 1", nothing, "run model -p a --top-p 1.5", "top-p"),
        ("a negative probability", nothing, "run model -p a --min-p -0.5", "min-p"),
        ("no penalty", nothing, "run model -p a --repetition-penalty 0", "penalty"),
        ("too many texts", nothing, "run model -p a -p b --batch 200", "400 texts, and at most 256"),
        ("nothing to measure", nothing, "bench model -p 0 -n 0", "nothing to measure"),
        ("more than it remembers", nothing, "bench model -p 200 -n 57", "this run can remember 256"),
        ("no such length", nothing, "bench model -p 4294967295 -n 1", "no model remembers so many"),
        (
            "no room for so many",
            nothing,
            "run model -p a --batch 256 --vram 1MiB",
            "--vram 1.00 MiB is too small",
        ),
        ("an empty stop text", nothing, "run model -p a --stop=", "stop"),
        ("a stop text for ids", nothing, "run model -p a --print-ids --stop x", "--stop needs text"),
        (
            "a revision of a path",
            nothing,
            "run model -p a --revision v1",
            "--revision v1: the model is a path",
        ),
        ("a revision of nothing", nothing, "plan --revision v1", "--revision v1: no name on the hub"),
        ("a revision of a shape", nothing, "pack --dummy llama-125m x --revision v1", "--revision v1: "),
        (
            "an unknown shape",
            nothing,
            "run --dummy llama-9",
            "no dummy shape `llama-9`; there are llama-125m, ",
        ),
        ("a shape that leaves its folder", nothing, "plan --dummy ../llama-125m", "no dummy shape"),
        ("an unknown shape to pack", nothing, "pack --dummy llama-9 packed", "no dummy shape"),
        (
            "a trace nowhere",
            nothing,
            "run model -p a --trace gone/trace",
            "gone/trace: its folder does not exist",
        ),
        ("a trace over a folder", nothing, "run model -p a --trace model", "found a folder"),
        (
            "logits nowhere",
            nothing,
            "logits model --ids 1 --out gone/logits",
            "gone/logits: its folder does not exist",
        ),
        ("logits over a folder", nothing, "logits model --ids 1 --out model", "found a folder"),
        ("packing over a folder", nothing, "pack model model", "found a folder"),
        ("packing over the weights", nothing, "pack model ./model/model.safetensors", "choose another name"),
        ("packing over the config", nothing, "pack model model/config.json", "choose another name"),
        ("packing into a file", |p| p.write("file", ""), "pack model file/packed", "file"),
        ("a cache that is a file", |p| p.write("cache", ""), RUN_IDS, "cache"),
    ]);
    let place = Place::new();
    let output = place.command(RUN_IDS).env("PIPO_WGPU_CACHE", "cache").output().unwrap();
    super::Outcome::of(output).refused("a relative cache", "expected an absolute path");
}
