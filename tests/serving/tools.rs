//! Calls of tools, keys, and a model with a chat template of its own.

use std::fs;

use serde_json::{Value, json};

use super::client::Server;
use super::{greedy, with};
use crate::common::fixture;

fn tools() -> Value {
    let place = json!({"type": "string", "enum": ["hill", "sea"]});
    let parameters = json!({
        "type": "object", "properties": {"place": place}, "required": ["place"], "additionalProperties": false
    });
    let look = json!({"name": "look", "description": "Looks.", "parameters": parameters});
    json!([{"type": "function", "function": look}, {"type": "function", "function": {"name": "rest"}}])
}

#[test]
fn a_call_can_be_forced() {
    let server = Server::start("--parallel 2 --context 256");
    let asked = with(greedy("What is there?", 80), json!({"tools": tools()}));
    let forced = with(asked.clone(), json!({"tool_choice": "required"}));
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "look"}}});
    for body in [&forced, &with(asked.clone(), named.clone())] {
        let answer = server.chat(body);
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        assert_eq!(choice["message"]["content"], Value::Null);
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        let [call] = &calls[..] else { panic!("one call: {answer}") };
        assert_eq!(call["type"], "function");
        assert_eq!(call["id"].as_str().unwrap().len(), 9);
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        match call["function"]["name"].as_str().unwrap() {
            "look" => assert!(["hill", "sea"].contains(&arguments["place"].as_str().unwrap())),
            name => assert_eq!((name, &arguments), ("rest", &json!({}))),
        }
    }
    // As a stream: the same call.
    let whole = server.chat(&with(asked.clone(), named.clone()));
    let stream = with(with(asked.clone(), named), json!({"stream": true}));
    let events = server.post("/v1/chat/completions", &stream).events();
    let call = events.iter().find_map(|event| event["choices"][0]["delta"].get("tool_calls")).unwrap();
    assert_eq!(call[0]["index"], 0);
    assert_eq!(call[0]["function"], whole["choices"][0]["message"]["tool_calls"][0]["function"]);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    // Left to itself, a model that tells stories tells one.
    let answer = server.chat(&asked);
    assert!(answer["choices"][0]["message"].get("tool_calls").is_none(), "{answer}");
    let none = with(asked, json!({"tool_choice": "none", "max_tokens": 3}));
    assert!(server.chat(&none)["choices"][0]["message"]["content"].is_string());
    for wrong in [json!([{}]), json!([{"type": "function"}]), json!("x")] {
        let body = with(greedy("x", 2), json!({"tools": wrong}));
        assert_eq!(server.post("/v1/chat/completions", &body).status, 400);
    }
}

/// Shows roles, contents and tools.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if tools %}{{ tools | tojson }}<tool_call>{% endif %}\
                        {% if add_generation_prompt %}a:{% if thinking %}<think>\n{% endif %}{% endif %}";

#[test]
fn templates_and_keys_are_heeded() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(fixture("llama3_gqa").join(name), model.join(name)).unwrap();
    }
    fs::copy(fixture("tokenizer").join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
    let special = r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}"#;
    fs::write(model.join("tokenizer_config.json"), special).unwrap();
    let line = format!("{} --api-key sesame --parallel 2 --context 250", model.display());
    let server = Server::start(&line);

    let body = with(greedy("Hello", 6), json!({"ignore_eos": true}));
    for headers in [&[][..], &[("Authorization", "Bearer open")]] {
        let reply = server.ask("POST", "/v1/chat/completions", headers, &body.to_string());
        assert_eq!(reply.json(401)["error"]["code"], "invalid_api_key");
        assert_eq!(server.ask("GET", "/metrics", headers, "").status, 401);
    }
    assert_eq!(server.get("/health").status, 200);
    assert!(server.get("/").body.contains("<html"));
    let key = [("Authorization", "Bearer sesame")];
    let ask = |path: &str, body: &Value| server.ask("POST", path, &key, &body.to_string()).json(200);
    assert_eq!(server.ask("GET", "/v1/models", &key, "").json(200)["data"][0]["id"], "tiny");

    // The template's text is what a completion would be asked to continue.
    let chat = ask("/v1/chat/completions", &body);
    let plain = json!({"prompt": "user: Hello\na:", "max_tokens": 6, "temperature": 0, "ignore_eos": true});
    let plain = ask("/v1/completions", &plain);
    assert_eq!(chat["choices"][0]["message"]["content"], plain["choices"][0]["text"]);
    assert_eq!(chat["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
    // Tools are shown to the model, unless none may be called.
    let rest = json!([{"type": "function", "function": {"name": "rest"}}]);
    let with_tools = with(body.clone(), json!({ "tools": rest }));
    let longer = ask("/v1/chat/completions", &with_tools);
    let none = ask("/v1/chat/completions", &with(with_tools, json!({"tool_choice": "none"})));
    assert!(longer["usage"]["prompt_tokens"].as_u64() > chat["usage"]["prompt_tokens"].as_u64());
    assert_eq!(none["usage"]["prompt_tokens"], chat["usage"]["prompt_tokens"]);
    // What a model thinks is told apart from what it says.
    let thinking = with(body.clone(), json!({"chat_template_kwargs": {"thinking": true}}));
    let thinking = &ask("/v1/chat/completions", &thinking)["choices"][0]["message"];
    assert_eq!(thinking["content"], "", "{thinking}");
    assert!(thinking["reasoning_content"].as_str().is_some_and(|text| !text.is_empty()), "{thinking}");
    assert!(chat["choices"][0]["message"].get("reasoning_content").is_none());
    // An answer that has begun goes on.
    let mut begun = body;
    begun["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": "Well"}));
    begun["continue_final_message"] = true.into();
    let shorter = ask("/v1/chat/completions", &begun);
    assert!(shorter["usage"]["prompt_tokens"].as_u64() > chat["usage"]["prompt_tokens"].as_u64());
}
