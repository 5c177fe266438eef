//! Texts keep to their grammars, and grammars are refused before they take too much.

use super::*;

/// One token for each ASCII character, a few longer ones, and an end.
fn grammars() -> (Grammars, Vec<Piece>) {
    let mut pieces: Vec<Piece> = (0..128u8).map(|byte| Piece { bytes: vec![byte], control: false }).collect();
    for word in ["{\"", "\": ", "true", "false"] {
        pieces.push(Piece { bytes: word.into(), control: false });
    }
    pieces.push(Piece { bytes: b"</s>".to_vec(), control: true });
    pieces.push(Piece::default());
    (Grammars::new(&pieces, &[132, 999]).unwrap(), pieces)
}

/// What a model that likes low ids, or high ones, writes.
fn written(grammar: &Grammar, high: bool) -> String {
    let (grammars, pieces) = grammars();
    let mut constraint = grammars.compile(grammar).unwrap();
    let mut text = Vec::new();
    for _ in 0..200 {
        let mut logits = vec![0.0; pieces.len()];
        constraint.mask(&mut logits, usize::MAX).unwrap();
        let allowed: Vec<usize> = (0..logits.len()).filter(|id| logits[*id] == 0.0).collect();
        let id = *if high { allowed.last() } else { allowed.first() }.expect("something is allowed");
        if id == 132 {
            break;
        }
        constraint.accept(id as u32).unwrap();
        text.extend(&pieces[id].bytes);
        if constraint.is_complete() {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn texts_keep_to_their_grammar() {
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["ok", "n"],
        "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 3, "maximum": 4}}});
    assert_eq!(written(&Grammar::Schema(schema.clone()), false), r#"{"ok": false, "n": 3}"#);
    let high: Value = serde_json::from_str(&written(&Grammar::Schema(schema), true)).unwrap();
    assert_eq!(high["n"], 4);
    assert_eq!(written(&Grammar::Regex("[a-c]{3}d".into()), true), "cccd");
    assert_eq!(written(&Grammar::Lark("start: \"x\" (\"y\" | \"z\")".into()), false), "xy");
    // References within a schema, as Pydantic writes them.
    let nested = json!({"$defs": {"B": {"type": "boolean"}}, "type": "object", "required": ["b"],
        "properties": {"b": {"$ref": "#/$defs/B"}}, "additionalProperties": false});
    assert_eq!(written(&Grammar::Schema(nested), false), r#"{"b": false}"#);
}

#[test]
fn a_text_that_could_not_end_in_time_is_ended() {
    let (grammars, pieces) = grammars();
    let schema = json!({"type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {"type": "boolean"}}});
    for most in [40, 60, 250] {
        let mut constraint = grammars.compile(&Grammar::Schema(schema.clone())).unwrap();
        let (mut text, mut left) = (Vec::new(), most);
        while left > 0 && !constraint.is_complete() {
            let mut logits = vec![0.0; pieces.len()];
            constraint.mask(&mut logits, left).unwrap();
            // A model that never stops a word.
            let wanted = |id: &usize| logits[*id] == 0.0 && *id != 132;
            let id = (97..123).find(wanted).or_else(|| (0..pieces.len()).rev().find(wanted));
            let Some(id) = id else { break };
            constraint.accept(id as u32).unwrap();
            text.extend(&pieces[id].bytes);
            left -= 1;
        }
        let value: Value = serde_json::from_slice(&text)
            .unwrap_or_else(|e| panic!("{most}: {e}: {}", String::from_utf8_lossy(&text)));
        assert!(value["a"][0].as_str().unwrap().len() > most / 4 && value["b"].is_boolean(), "{value}");
        assert!(constraint.was_cut() && left < 20, "{left} of {most} tokens were left");
    }
}

#[test]
fn whole_numbers_end() {
    let schema = json!({"type": "object", "required": ["n"], "additionalProperties": false, "properties":
        {"n": {"type": "integer"}, "m": {"enum": [{"type": "integer"}]}}});
    assert_eq!(whole_numbers(&schema)["properties"]["m"], schema["properties"]["m"]);
    assert_eq!(whole_numbers(&schema)["properties"]["n"]["maximum"], WHOLE_MAX);
    assert_eq!(written(&Grammar::Schema(schema), true), "{\"n\": 9}");
    let known = json!({"type": "integer", "exclusiveMaximum": 5, "minimum": 0});
    assert_eq!(whole_numbers(&known), known);
}

/// Each of these is gone through by recursion, as deep as it is long.
#[test]
fn long_chains_have_room() {
    let (grammars, _) = grammars();
    let rules: String = (0..8_000).map(|rule| format!("r{rule}: r{}\n", rule + 1)).collect();
    let defs = (0..2_900)
        .map(|def| (format!("d{def}"), json!({"anyOf": [{"$ref": format!("#/$defs/d{}", def + 1)}]})));
    let defs: Map<String, Value> = defs.chain([("d2900".to_owned(), json!({"const": 7}))]).collect();
    let listed: Map<String, Value> = (0..3_000).map(|member| (format!("m{member}"), json!({}))).collect();
    for grammar in [
        Grammar::Lark(format!("start: r0\n{rules}r8000: \"x\"")),
        Grammar::Lark(format!("start: R0\n{}R8000: \"x\"", rules.to_uppercase())),
        Grammar::Schema(json!({"$defs": defs, "$ref": "#/$defs/d0"})),
        Grammar::Schema(json!({"properties": listed})),
    ] {
        let mut constraint = grammars.compile(&grammar).unwrap();
        for left in [400, 1] {
            let mut logits = vec![0.0; 300];
            constraint.mask(&mut logits, left).unwrap();
            let first = logits.iter().position(|logit| *logit == 0.0).unwrap();
            constraint.accept(first as u32).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_kept_to_is_refused() {
    let (grammars, _) = grammars();
    // 2^16 letters in a few lines.
    let twice = |level: u32| format!("A{}: A{level} A{level}\n", level + 1);
    let doubled = format!("start: A16\nA0: \"a\"?\n{}", (0..16).map(twice).collect::<String>());
    for (grammar, complaint) in [
        (Grammar::Schema(json!({"type": "strange"})), "strange"),
        (Grammar::Regex("(".into()), "regex parse error: unclosed group"),
        (Grammar::Regex("a?".repeat(GRAMMAR_BYTES_MAX)), "give a smaller one"),
        (Grammar::Lark("nonsense".into()), "grammar cannot be used"),
        (Grammar::Regex("a?".repeat(60_000)), "too many letters in a row may be left out"),
        (Grammar::Lark(doubled), "too many letters in a row may be left out"),
        (
            Grammar::Schema(json!({"type": "string", "pattern": "a?".repeat(60_000)})),
            "too many letters in a row",
        ),
        (Grammar::Schema(json!({"type": "integer", "multipleOf": 9_999_991})), "too long to tell apart"),
    ] {
        let problem = grammars.compile(&grammar).err().unwrap().to_string();
        assert!(problem.contains(complaint) && !problem.contains('\n'), "{problem}");
    }
    assert!(Grammars::new(&[Piece::default()], &[7]).is_err());
}
