//! The server as its clients meet it: a real process, asked over TCP.

mod client;
mod connections;
mod crowds;
mod faults;
mod llama;
mod openai;
mod page;
mod soak;
mod tools;

use serde_json::{Value, json};

use client::Server;

/// A greedy chat of a few tokens.
fn greedy(text: &str, max_tokens: u32) -> Value {
    let message = json!({"role": "user", "content": text});
    json!({"messages": [message], "max_tokens": max_tokens, "temperature": 0})
}

/// A body with more fields.
fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("fields") };
    body.as_object_mut().unwrap().extend(more);
    body
}

fn content(answer: &Value, choice: usize) -> &str {
    answer["choices"][choice]["message"]["content"].as_str().unwrap()
}

/// The joined text of a stream's first choice.
fn streamed(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["choices"][0]["index"] == 0);
    deltas.filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn answers_have_openais_form() {
    let server = Server::start("--parallel 4 --context 256");
    assert_eq!(server.get("/health").json(200)["status"], "ok");
    let models = server.get("/v1/models").json(200);
    assert_eq!(models["data"][0]["id"], "built-in");
    assert_eq!(server.get("/v1/models/built-in").json(200)["object"], "model");

    // Whole, and as a stream.
    let body = greedy("One day", 12);
    let answer = server.chat(&body);
    let text = content(&answer, 0);
    assert!(text.len() > 20, "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let usage = &answer["usage"];
    assert_eq!((usage["completion_tokens"].as_u64(), usage["total_tokens"].as_u64()), (Some(12), Some(15)));
    let stream = with(body.clone(), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = server.post("/v1/chat/completions", &stream).events();
    assert_eq!(streamed(&events), text);
    assert!(events.len() > 12, "token by token: {}", events.len());
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let [.., last, usage] = &events[..] else { panic!("events") };
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    let completion = server.complete(&json!({"prompt": "One day", "max_tokens": 12, "temperature": 0}));
    assert_eq!(completion["choices"][0]["text"], text);
    let echoed = json!({"prompt": ["One day", "The"], "max_tokens": 2, "temperature": 0, "echo": true});
    let echoed = server.complete(&echoed);
    assert!(echoed["choices"][0]["text"].as_str().unwrap().starts_with("One day,"), "{echoed}");
    assert!(echoed["choices"][1]["text"].as_str().unwrap().starts_with("The"), "{echoed}");

    a_prompt_is_scored(&server);

    // Stop texts, which are not shown, also where they lie across tokens.
    let (before, _) = text.split_at(text.find("girl").unwrap());
    for more in [json!({"stop": "girl"}), json!({"stop": ["xyz", "girl"], "stream": true})] {
        let reply = server.post("/v1/chat/completions", &with(body.clone(), more.clone()));
        let (found, finish) = match more["stream"].is_null() {
            true => (
                content(&reply.json(200), 0).to_owned(),
                reply.json(200)["choices"][0]["finish_reason"].clone(),
            ),
            false => {
                let events = reply.events();
                (streamed(&events), events[events.len() - 1]["choices"][0]["finish_reason"].clone())
            }
        };
        assert_eq!((found.as_str(), finish), (before, json!("stop")));
    }

    // Several texts: the first is the one alone, each seed draws its own.
    let drawn = json!({"temperature": 1.2, "seed": 7, "n": 3, "max_tokens": 8});
    let answer = server.chat(&with(body.clone(), drawn.clone()));
    let texts: Vec<&str> = (0..3).map(|choice| content(&answer, choice)).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    for (seed, text) in [(7, texts[0]), (9, texts[2])] {
        let alone = server.chat(&with(body.clone(), with(drawn.clone(), json!({"n": 1, "seed": seed}))));
        assert_eq!(content(&alone, 0), text);
    }
    assert_eq!(answer["usage"]["completion_tokens"], 24);

    // Likelihoods.
    let likely = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 4});
    let answer = server.chat(&with(body.clone(), likely));
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    for entry in entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"]), (3, &entry["token"]), "greedy takes the likeliest");
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
    }
    let joined: String = entries.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(joined, content(&answer, 0));

    // A bias bars the token that would be chosen, penalties make repeats rare.
    let first =
        server.complete(&json!({"prompt": "One day", "max_tokens": 1, "temperature": 0, "logprobs": 1}));
    assert_eq!(first["choices"][0]["logprobs"]["tokens"][0], ",");
    let ids = (0..4096).map(|id| (id.to_string(), json!(-100))).filter(|(id, _)| id != "17");
    let barred = json!({"logit_bias": ids.collect::<serde_json::Map<_, _>>(), "max_tokens": 2});
    let only = server.chat(&with(body.clone(), barred));
    assert_ne!(content(&only, 0), &text[..content(&only, 0).len()]);

    wrong_requests_are_named(&server);
    the_prefix_of_a_conversation_is_known(&server);
}

/// `echo` with `logprobs`: the prompt's own tokens have likelihoods, the same as if they were chosen.
fn a_prompt_is_scored(server: &Server) {
    let body = json!({"prompt": "One day", "max_tokens": 6, "temperature": 0, "logprobs": 2});
    let written = server.complete(&body);
    let (text, chosen) = (&written["choices"][0]["text"], &written["choices"][0]["logprobs"]);
    let whole = format!("One day{}", text.as_str().unwrap());
    let score = json!({"prompt": [whole, "One day"], "max_tokens": 0, "echo": true, "logprobs": 2});
    let scored = server.complete(&score);
    let choice = &scored["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(whole), &json!("length")));
    let likelihoods = &choice["logprobs"];
    let count = |name: &str| likelihoods[name].as_array().unwrap().len();
    let tokens = count("tokens");
    assert!(["token_logprobs", "top_logprobs", "text_offset"].iter().all(|name| count(name) == tokens));
    assert_eq!(
        (&likelihoods["token_logprobs"][0], &likelihoods["top_logprobs"][0]),
        (&Value::Null, &Value::Null)
    );
    // Reading many tokens rounds otherwise than writing one.
    for (place, own) in chosen["token_logprobs"].as_array().unwrap().iter().enumerate() {
        let place = tokens - 6 + place;
        let scored = likelihoods["token_logprobs"][place].as_f64().unwrap();
        assert!((scored - own.as_f64().unwrap()).abs() < 0.05, "token {place}: {scored} and {own}");
    }
    let end = likelihoods["text_offset"][tokens - 1].as_u64().unwrap() as usize;
    let last = likelihoods["tokens"][tokens - 1].as_str().unwrap();
    assert_eq!(&whole[end..], last);
    assert_eq!(scored["usage"]["completion_tokens"], 0);
    // The same as a stream, with tokens behind.
    let more = json!({"max_tokens": 2, "stream": true, "temperature": 0, "prompt": "One day"});
    let events = server.post("/v1/completions", &with(score, more)).events();
    assert_eq!(events[0]["choices"][0]["text"], "One day");
    let first = events[0]["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
    assert!(first.len() > 1 && first[1].as_f64() == likelihoods["token_logprobs"][1].as_f64(), "{first:?}");
    assert_eq!(events[1]["choices"][0]["logprobs"]["text_offset"][0], 7);
}

fn wrong_requests_are_named(server: &Server) {
    let chat = "/v1/chat/completions";
    for (path, body, status, words) in [
        (chat, "{", 400, "not JSON"),
        (chat, "[]", 400, "JSON object"),
        (chat, "{}", 400, "at least one message"),
        (chat, r#"{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}"#, 400, "\"hot\""),
        (chat, r#"{"messages": [{"role": "user", "content": "x"}], "n": 0}"#, 400, "`n`"),
        (chat, r#"{"messages": [{"role": "user", "content": "x"}], "functions": []}"#, 400, "`functions`"),
        (
            chat,
            r#"{"messages": [{"role": "user", "content": "x"}], "stop": ["a","b","c","d","e"]}"#,
            400,
            "`stop`",
        ),
        (
            chat,
            r#"{"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}"#,
            400,
            "no `tools`",
        ),
        ("/v1/completions", r#"{"prompt": [5000]}"#, 400, "vocabulary"),
        ("/v1/completions", r#"{"prompt": {"a": 1}}"#, 400, "`prompt`"),
        ("/v1/completions", r#"{"prompt": "a", "suffix": "b"}"#, 400, "`suffix`"),
        // Nothing is asked for by the first of these.
        (
            "/v1/completions",
            r#"{"prompt": "a", "t_max_predict_ms": -1, "min_tokens": 0, "bad_words": [], "mirostat": 2}"#,
            400,
            "`mirostat`",
        ),
        ("/v1/embeddings", "{}", 404, "/v1/embeddings"),
    ] {
        let error = &server.ask("POST", path, &[], body).json(status)["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{body}: {message}");
        assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some());
    }
    let long = json!({"prompt": vec![5; 256]});
    let error = server.post("/v1/completions", &long).json(400);
    assert_eq!(error["error"]["code"], "context_length_exceeded");
    assert_eq!(server.ask("GET", chat, &[], "").json(405)["error"]["type"], "invalid_request_error");
    let huge = [("Content-Length", "99999999999")];
    let reply = client::Reply::read(server.send("POST", chat, &huge, ""));
    assert!([400, 413].contains(&reply.status), "{}", reply.body);
    // What nobody knows is ignored, as OpenAI does.
    server.chat(&with(
        greedy("Hi", 1),
        json!({"user": "me", "store": false, "metadata": {"a": "b"}, "xyz": 1}),
    ));

    // Pages on this machine may ask.
    let origin = [("Origin", "http://localhost:5173"), ("Access-Control-Request-Method", "POST")];
    let reply = server.ask("OPTIONS", chat, &origin, "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(origin[0].1)));
    let reply = server.ask("GET", "/v1/models", &[("Origin", "https://evil.example")], "");
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

/// What was read of a prompt is not read again, and no bit of the answer depends on that.
fn the_prefix_of_a_conversation_is_known(server: &Server) {
    let prompt = "Once upon a time there was a little dragon who lived on a hill and";
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let complete =
        |prompt: &str| server.complete(&json!({"prompt": prompt, "max_tokens": 10, "temperature": 0}));
    let first = complete(prompt);
    let again = complete(prompt);
    let tokens = again["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached(&again), tokens - 1);
    assert_eq!(first["choices"], again["choices"]);
    // The answer becomes part of the next prompt, as in a chat.
    let longer = format!("{prompt}{} Then", first["choices"][0]["text"].as_str().unwrap());
    let second = complete(&longer);
    assert_eq!(cached(&second), tokens, "of an answer, no row is taken over");
    // Texts of one request share their prompt as well.
    let fresh = "It was a cold day and the little bird sat in the old tree and ".repeat(4);
    let count = |name: &str| server.metric(name);
    let before = [count("pipo_prompt_tokens_total"), count("pipo_cached_tokens_total")];
    let body = json!({"prompt": fresh, "max_tokens": 6, "temperature": 0, "n": 4});
    let several = server.complete(&body);
    let tokens = several["usage"]["prompt_tokens"].as_f64().unwrap();
    assert!(tokens > 50.0, "{several}");
    let after = [count("pipo_prompt_tokens_total"), count("pipo_cached_tokens_total")];
    let [read, known] = [after[0] - before[0], after[1] - before[1]];
    assert!(
        read + known == 4.0 * tokens && read <= tokens + 3.0,
        "{read} read and {known} known of {tokens}"
    );
    let text = |choice: usize| &several["choices"][choice]["text"];
    assert!((1..4).all(|choice| text(choice) == text(0)), "greedy texts are equal: {several}");
}

#[test]
fn a_grammar_is_kept_to() {
    let server = Server::start("--parallel 2 --context 256");
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "friends"],
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "friends": {"type": "array", "maxItems": 2, "items": {"type": "string", "enum": ["Tom", "Lily"]}},
        },
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "child", "schema": schema}});
    for more in [
        json!({"temperature": 0}),
        json!({"temperature": 1.5, "seed": 3}),
        json!({"temperature": 1.5, "seed": 4}),
    ] {
        let asked = with(greedy("Tim was a boy.", 120), json!({"response_format": format}));
        let answer = server.chat(&with(asked, more));
        let child: Value =
            serde_json::from_str(content(&answer, 0)).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert!(child["name"].as_str().unwrap().chars().count() <= 12);
        assert!((0..=120).contains(&child["age"].as_i64().unwrap()));
        let friends = child["friends"].as_array().unwrap();
        assert!(friends.len() <= 2 && friends.iter().all(|friend| friend == "Tom" || friend == "Lily"));
        assert_eq!(child.as_object().unwrap().len(), 3);
    }
    // What could not end in time is ended, so that it can be read.
    let list = json!({"type": "object", "required": ["words", "n"], "additionalProperties": false, "properties":
        {"words": {"type": "array", "items": {"type": "string"}}, "n": {"type": "integer"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "list", "schema": list}});
    let asked = with(greedy("One day", 60), json!({"response_format": format, "temperature": 1, "seed": 5}));
    let answer = server.chat(&asked);
    let list: Value = serde_json::from_str(content(&answer, 0)).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert!(list["words"].is_array() && list["n"].as_f64().is_some_and(|n| n.fract() == 0.0), "{list}");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 60);
    let regex = with(greedy("Call me at", 40), json!({"guided_regex": "[0-9]{3}-[0-9]{4}"}));
    let answer = server.chat(&regex);
    let number = content(&answer, 0);
    assert!(number.len() == 8 && number.as_bytes()[3] == b'-', "{number}");
    let choice =
        with(greedy("Yes or no?", 40), json!({"guided_choice": ["perhaps", "never"], "stream": true}));
    let said = streamed(&server.post("/v1/chat/completions", &choice).events());
    assert!(["perhaps", "never"].contains(&said.as_str()), "{said}");
    for (format, words) in [
        (json!({"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}), "odd"),
        (json!({"type": "grammar", "grammar": "start: ("}), "grammar"),
    ] {
        let asked = with(greedy("x", 4), json!({"response_format": format}));
        let error = server.post("/v1/chat/completions", &asked).json(400);
        assert!(error["error"]["message"].as_str().unwrap().contains(words), "{error}");
    }
}
