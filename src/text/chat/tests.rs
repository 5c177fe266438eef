//! Templates against what Transformers renders, and control tokens that messages spell.

use std::path::Path;

use serde_json::json;

use super::*;

pub(super) fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The arguments that a fixture holds; what is none of them is a variable.
fn chat<'a>(value: &'a Value, variables: &'a mut Map<String, Value>) -> Chat<'a> {
    const NAMED: [&str; 5] =
        ["messages", "tools", "documents", "add_generation_prompt", "continue_final_message"];
    variables.extend(value.as_object().unwrap().clone());
    variables.retain(|name, _| !NAMED.contains(&name.as_str()));

    let list = |name: &str| value[name].as_array().map(Vec::as_slice);
    let is = |name: &str| value[name] == Value::Bool(true);
    Chat {
        tools: list("tools"),
        documents: list("documents"),
        variables: Some(variables),
        add_generation_prompt: is("add_generation_prompt"),
        continue_final_message: is("continue_final_message"),
        now: "2025-03-07T09:05:03".parse().unwrap(),
        ..Chat::new(list("messages").unwrap_or_default())
    }
}

#[test]
fn features_render_as_transformers_renders_them() {
    let recorded = fixture("dialect.json");
    let mut variables = Map::new();
    let chat = chat(&recorded["chat"], &mut variables);
    let mut wrong = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let expected = case["expected"].as_str();
        let found = ChatTemplate::new(template, Map::new()).and_then(|t| t.render(&chat));
        let is_equal = match &found {
            Ok(found) => expected == Some(found),
            Err(error) => expected.is_none() && !error.to_string().contains('\n'),
        };
        if !is_equal {
            wrong.push(format!("{template}\n expected {expected:?}\n found    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of them differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn special(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn families_render_as_transformers_renders_them() {
    let recorded = fixture("families.json");
    let families = recorded["families"].as_array().unwrap();
    assert!(families.len() >= 8);
    for family in families {
        let template =
            ChatTemplate::new(family["template"].as_str().unwrap(), special(&family["special"])).unwrap();
        for case in family["recorded"].as_array().unwrap() {
            let mut variables = Map::new();
            let chat = chat(&recorded["chats"][case["chat"].as_u64().unwrap() as usize], &mut variables);
            let found = template.render(&chat);
            let name = format!("{} {}", family["name"], case["chat"]);
            match (found, case["expected"].as_str()) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(error), None) => {
                    assert!(error.to_string().contains("refuses these messages: "), "{error}");
                }
                (found, expected) => panic!("{name}: expected {expected:?}, found {found:?}"),
            }
        }
    }
}

#[test]
fn published_templates_render_as_recorded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/chat/vectors.json");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("SKIPPED: {} is absent", path.display());
        return;
    };
    let cases: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        let tokens = ["bos_token", "eos_token"].map(|name| (name.to_owned(), case[name].clone()));
        let template =
            ChatTemplate::new(case["template"].as_str().unwrap(), tokens.into_iter().collect()).unwrap();
        // The calls that this one's text shows are not among its messages.
        if case["name"].as_str().unwrap().contains("tool call") {
            continue;
        }
        let messages = template.with_system(case["messages"].as_array().unwrap()).unwrap();
        let add = case["add_generation_prompt"] == Value::Bool(true);
        let text = template.render(&Chat { add_generation_prompt: add, ..Chat::new(&messages) }).unwrap();
        assert_eq!(text, case["expected"].as_str().unwrap(), "{}", case["name"]);
    }
}

fn render(source: &str, messages: &[Value]) -> Result<String> {
    ChatTemplate::new(source, Map::new())?
        .render(&Chat { add_generation_prompt: false, ..Chat::new(messages) })
}

#[test]
fn problems_are_one_sentence() {
    let message = [json!({"role": "user", "content": "x"})];
    let deep = (0..300).fold(json!(1), |inner, _| json!([inner]));
    // Each list holds the last one twice.
    let nested = |then: &str| {
        let lists = "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
        format!("{lists}{then}")
    };
    for (source, messages, complaint) in [
        ("{% if %}", &message[..], "fails in line 1: "),
        ("a\n\n{{ x", &message, "fails in line 3: "),
        ("{{ messages | nothing_like_it }}", &message, "filter nothing_like_it is unknown"),
        ("{{ raise_exception('No\nway') }}", &message, "the chat template refuses these messages: No"),
        ("{{ 1 + 'a' }}", &message, "unsupported types"),
        ("{{ missing.deeper }}", &message, "undefined"),
        ("{{ strftime_now('%Q!') }}", &message, "strftime_now cannot write `%Q!`"),
        ("{{ messages | tojson }}", &[json!({"role": "user", "content": deep})], "nested deeper than 200"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", &message, "recursion"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}\
             {% endfor %}{% endfor %}",
            &message,
            "runs for too long",
        ),
        ("{{ 'x' * 999999999 }}", &message, "chat template fails in line 1"),
        ("{{ ('a\n' * 200000) | indent(60000) }}", &message, "runs for too long"),
        ("{{ ('\t' * 200000).expandtabs(60000) }}", &message, "runs for too long"),
        ("{{ ('a ' * 9000) | wordwrap(1, wrapstring='x' * 200000) }}", &message, "runs for too long"),
        ("{{ 'x'.join(['a' * 60000] * 60000) }}", &message, "runs for too long"),
        ("{{ ('{0}' * 20000).format('x' * 60000) }}", &message, "runs for too long"),
        ("{{ '{:>999999999}'.format(5) }}", &message, "a field's width or precision is more than 65536"),
        (
            "{{ '{:.99999999999999999999}'.format(5.0) }}",
            &message,
            "a field's width or precision is more than",
        ),
        ("{{ '%-070000d' | format(5) }}", &message, "a field's width or precision is more than"),
        ("{{ ('{0:>60000}' * 60000).format(5) }}", &message, "runs for too long"),
        ("{{ ('%(a)60000d' * 60000) | format(a=5) }}", &message, "runs for too long"),
        ("{{ ('%(a)s' * 60000) | format(a='x' * 60000) }}", &message, "runs for too long"),
        ("{{ [['x' * 60000] * 60000] | map('join') | list }}", &message, "runs for too long"),
        ("{{ (['x' * 60000] * 60000) | tojson }}", &message, "would be written in more than"),
        (&nested("{{ ns.l | tojson }}"), &message, "would be written in more than"),
        (&nested("{{ [ns.l] | join }}"), &message, "would be shown in more than"),
        (&nested("{{ ns.l }}"), &message, "would be shown in more than"),
        (&nested("{{ ns.l | string }}"), &message, "would be shown in more than"),
        (&nested("{{ '{}'.format(ns.l) }}"), &message, "would be shown in more than"),
        (&nested("{{ ','.join(ns.l) }}"), &message, "would be shown in more than"),
        (&format!("{{{{ {}", "x".repeat(70_000)), &message, "more than 65534 lines, or characters in a line"),
        (&format!("{{{{ {}1 }}}}", "-".repeat(20_000)), &message, "more than 4096 words and signs in a tag"),
        (
            &format!("{{% if x{} %}}", ".a\n".repeat(9000)),
            &message,
            "more than 4096 words and signs in a tag",
        ),
        ("{{ 'a'.center(60000, 'xy') }}", &message, "`center` fills with one character, found 2"),
        ("{{ messages }}", &[json!("x")], "message 1 of the chat: expected an object"),
    ] {
        let problem = render(source, messages).unwrap_err().to_string();
        let line = problem.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(line.contains(complaint), "{source}: {problem}");
    }
}

/// What may stand in a template has room on the smallest stack that renders one, the tests' own.
#[test]
fn the_longest_tags_have_room() {
    let long = |start: &str, each: &str, count: usize, end: &str| {
        let source = format!("{start}{}{end}", each.repeat(count));
        // What it comes to does not matter.
        let _ = render(&source, &[]);
    };
    long("{{ ", "-", 4000, "1 }}");
    long("{{ ", "not ", 4000, "1 }}");
    long("{{ 1", "|string", 2000, " }}");
    long("{{ x", ".a", 2000, " }}");
    long("{{ 1", "+1", 2000, " }}");
    long("{{ 'a'", "~'b'", 2000, " }}");
    long("{{ ", "1 if 0 else ", 1000, "1 }}");
    long("{% if 0 %}", "{% elif 0 %}", 20_000, "{% endif %}");
    long("", "{% if 1 %}", 20_000, "");
    long("", "{% set a = 1 %}", 20_000, "");
}

#[test]
fn numbers_outside_of_fields_are_no_widths() {
    for (source, text) in [
        ("{{ '20261130 {{:99999999}} {}'.format(5) }}", "20261130 {:99999999} 5"),
        ("{{ '{:>4}{:04d} 99999999'.format('a', 7) }}", "   a0007 99999999"),
        ("{{ '20261130 %%99999999 %s %-3d|'|format(5, 6) }}", "20261130 %99999999 5 6  |"),
        ("{{ '%(a)s%(a)4s 99999999'|format(a=5) }}", "5   5 99999999"),
        ("{{ [1, 2]|join }} {{ [{'n': 1}, {'n': 2}]|join(d=', ', attribute='n') }}", "12 1, 2"),
    ] {
        assert_eq!(render(source, &[]).unwrap(), text, "{source}");
    }
}

#[test]
fn a_last_message_goes_on() {
    let user = json!({"role": "user", "content": "q"});
    let assistant = json!({"role": "assistant", "content": "It is "});
    let source = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
    let trimming = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
    let go_on = |source: &str, messages: &[Value]| {
        let template = ChatTemplate::new(source, Map::new())?;
        template.render(&Chat {
            add_generation_prompt: false,
            continue_final_message: true,
            ..Chat::new(messages)
        })
    };
    let messages = [user.clone(), assistant.clone()];
    assert_eq!(go_on(source, &messages).unwrap(), "<q><It is ");
    assert_eq!(go_on(trimming, &messages).unwrap(), "<q><It is");
    let parts = [json!({"role": "assistant", "content": [{"text": "a"}, {"text": "b"}]})];
    assert_eq!(go_on("{% for p in messages[0].content %}{{ p.text }};{% endfor %}", &parts).unwrap(), "a;b");
    for (source, messages, complaint) in [
        (source, &[][..], "no message"),
        (source, &[json!({"role": "user"})], "no text in `content`"),
        ("{{ messages[0].role }}", &messages, "does not read `content`"),
        ("{{ messages[0].content }}", &messages, "leaves a part of it out"),
    ] {
        let problem = go_on(source, messages).unwrap_err().to_string();
        assert!(problem.contains("cannot go on: ") && problem.contains(complaint), "{problem}");
    }
    let both = Chat { continue_final_message: true, ..Chat::new(&messages) };
    assert!(ChatTemplate::new(source, Map::new()).unwrap().render(&both).is_err());
}

#[test]
fn templates_come_from_a_models_files() {
    let config = json!({"chat_template": "config", "bos_token": {"content": "<s>"}, "eos_token": "</s>",
                        "extra_special_tokens": {"image_token": "<img>"}});
    let list = json!({"chat_template": [{"name": "default", "template": "plain"},
                                        {"name": "tool_use", "template": "tools"}]});
    let files = |files: &[(&str, &str)]| {
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let find = |name: &str| {
            files.iter().find(|(found, _)| *found == name).map(|(_, text)| text.as_bytes().to_vec())
        };
        ChatTemplates::from_files(&names, find)
    };
    let (config, list) = (config.to_string(), list.to_string());
    let processor = json!({"chat_template": "processor"}).to_string();
    let tools = [json!({})];
    for (given, plain, tooled) in [
        (&[("tokenizer_config.json", config.as_str())][..], "config", "config"),
        (&[("tokenizer_config.json", &list)], "plain", "tools"),
        (&[("tokenizer_config.json", &config), ("chat_template.jinja", "own")], "own", "own"),
        (&[("tokenizer_config.json", "{}"), ("chat_template.json", &processor)], "processor", "processor"),
        (
            &[("chat_template.jinja", "own"), ("additional_chat_templates/tool_use.jinja", "more")],
            "own",
            "more",
        ),
    ] {
        let templates = files(given).unwrap().unwrap();
        let render = |chat: &Chat<'_>| templates.for_chat(chat).unwrap().render(chat).unwrap();
        assert_eq!(render(&Chat::new(&[])), plain);
        assert_eq!(render(&Chat { tools: Some(&tools), ..Chat::new(&[]) }), tooled);
    }
    let named = files(&[
        ("chat_template.jinja", "{{ bos_token }}{{ image_token }}{{ pad_token }}"),
        ("tokenizer_config.json", &config),
    ]);
    let named = named.unwrap().unwrap().for_chat(&Chat::new(&[])).unwrap();
    assert_eq!(named.render(&Chat::new(&[])).unwrap(), "<s><img>");
    assert_eq!(files(&[("tokenizer_config.json", "{}")]).unwrap(), None);
    assert_eq!(files(&[]).unwrap(), None);
    for (given, complaint) in [
        (("tokenizer_config.json", "{"), "tokenizer_config.json: expected JSON"),
        (("tokenizer_config.json", r#"{"chat_template": 5}"#), "found 5"),
        (("tokenizer_config.json", r#"{"chat_template": [{"name": "x"}]}"#), r#"found {"name":"x"}"#),
        (("chat_template.jinja", "\u{0}"), ""),
    ] {
        let outcome = files(&[given]);
        assert!(complaint.is_empty() || outcome.unwrap_err().to_string().contains(complaint));
    }
    let odd = json!({"chat_template": [{"name": "rag", "template": "x"}]}).to_string();
    let problem =
        files(&[("tokenizer_config.json", &odd)]).unwrap().unwrap().for_chat(&Chat::new(&[])).unwrap_err();
    assert!(problem.to_string().contains("named `default`, found rag"), "{problem}");
}

#[test]
fn a_system_message_is_never_lost() {
    let messages = [json!({"role": "system", "content": "s"}), json!({"role": "user", "content": "u"})];
    let all = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    let losing = "{% for m in messages %}\
                  {% if m.role != 'system' %}{{ m.role }}:{{ m.content }};{% endif %}{% endfor %}";
    let refusing = "{% if messages[0].role == 'system' %}\
                    {{ raise_exception('no') }}{% endif %}{{ messages[0].content }}";
    for (source, expected) in [(all, "system:s;user:u;"), (losing, "user:s\nu;"), (refusing, "s\nu")] {
        let template = ChatTemplate::new(source, Map::new()).unwrap();
        let adapted = template.with_system(&messages).unwrap();
        assert_eq!(template.render(&Chat::new(&adapted)).unwrap(), expected);
    }
    let template = ChatTemplate::new(refusing, Map::new()).unwrap();
    assert!(template.with_system(&messages[..1]).unwrap_err().to_string().contains("leave it out"));
}
