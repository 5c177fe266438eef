//! What llama.cpp's clients ask for, and in which words they are answered.

use serde_json::{Value, json};

use super::client::Server;
use super::{greedy, streamed, with};

#[test]
fn llamas_clients_find_what_they_ask_for() {
    let server = Server::start("--parallel 2 --context 256 --allow-origin https://chat.example");
    let props = server.get("/props").json(200);
    assert_eq!((&props["total_slots"], &props["role"]), (&json!(2), &json!("model")));
    let settings = &props["default_generation_settings"];
    assert_eq!(settings["n_ctx"], 256);
    assert!(settings["params"]["temperature"].is_number(), "{props}");
    let slots = server.get("/slots").json(200);
    assert_eq!(slots.as_array().unwrap().len(), 2);
    assert_eq!(slots[0]["is_processing"], false);
    assert_eq!(server.get("/v1/health").json(200)["status"], "ok");

    // Tokens and back; text that only looks like a control token is text.
    let post = |path: &str, body: Value| server.post(path, &body).json(200);
    let text = "One day, the fox said: \"Hi\"";
    let ids = post("/tokenize", json!({"content": text}));
    assert_eq!(post("/detokenize", ids.clone())["content"], text);
    let pieces = post("/tokenize", json!({"content": text, "with_pieces": true}));
    let joined: String =
        pieces["tokens"].as_array().unwrap().iter().map(|t| t["piece"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    let whole = post("/tokenize", json!({"content": text, "add_special": true}));
    assert_eq!(whole["tokens"].as_array().unwrap().len(), ids["tokens"].as_array().unwrap().len() + 1);
    let shown = post("/apply-template", json!({"messages": [{"role": "user", "content": "Hello"}]}));
    assert!(shown["prompt"].as_str().unwrap().contains("Hello"), "{shown}");
    // It would take two gigabytes of memory.
    let long = "a".repeat(9 << 20);
    for (path, body, words) in [
        ("/tokenize", json!({}), "`content`"),
        ("/tokenize", json!({"content": long}), "9437184 bytes"),
        ("/v1/completions", json!({"prompt": long}), "at most 8388608"),
        ("/detokenize", json!({"tokens": [4096]}), "below 4096"),
        ("/apply-template", json!({}), "message"),
        ("/completion", json!({"prompt": "a", "n_predict": 1, "max_tokens": 2}), "`n_predict`"),
        ("/completion", json!({"prompt": "a", "n": 2}), "2 texts were asked for, and the answer has one"),
        ("/completion", json!({"prompt": ["a", "b", "c"]}), "3 texts were asked for"),
        ("/completion", json!({"prompt": "a", "xtc_probability": 0.5}), "`xtc_probability`"),
    ] {
        let error = server.post(path, &body).json(400);
        assert!(error["error"]["message"].as_str().unwrap().contains(words), "{error}");
    }

    // A completion in its own words, whole and as a stream, is OpenAI's.
    let openai = server.complete(&json!({"prompt": "One day", "max_tokens": 9, "temperature": 0}));
    let text = &openai["choices"][0]["text"];
    let body =
        json!({"prompt": "One day", "n_predict": 9, "temperature": 0, "cache_prompt": true, "n_probs": 0});
    let own = post("/completion", body.clone());
    assert_eq!((&own["content"], &own["stop"], &own["stop_type"]), (text, &json!(true), &json!("limit")));
    assert_eq!((&own["tokens_predicted"], &own["tokens_evaluated"]), (&json!(9), &json!(3)));
    let reply = server.post("/completion", &with(body, json!({"stream": true})));
    let events: Vec<Value> = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(&json!(said), text);
    let (last, before) = events.split_last().unwrap();
    assert!(last["stop"] == true && before.iter().all(|event| event["stop"] == false), "{events:?}");
    assert!(last["timings"]["predicted_per_second"].is_number());
    // Without a limit it goes on to the end of the text.
    let endless = post("/completion", json!({"prompt": "One day", "temperature": 0, "seed": 1}));
    assert!(endless["tokens_predicted"].as_u64().unwrap() > 16, "{endless}");

    // What the web page asks of a chat: no limit, progress, and figures in each event.
    let asked = json!({"max_tokens": -1, "stream": true, "return_progress": true, "timings_per_token": true,
        "reasoning_format": "auto", "sse_ping_interval": 1, "top_p": 0.9});
    let prompt = "Once upon a time there was a dog who liked to run and play in the park with its friends";
    let events = server.post("/v1/chat/completions", &with(greedy(prompt, 1), asked)).events();
    let progress = &events[1]["prompt_progress"];
    assert_eq!(progress["processed"], progress["total"], "{progress}");
    assert!(progress["total"].as_u64().unwrap() > 10 && events[1]["choices"][0]["delta"] == json!({}));
    let tokens = events.iter().filter_map(|event| event["timings"]["predicted_n"].as_u64());
    let tokens: Vec<u64> = tokens.collect();
    assert!(tokens.len() > 2 && tokens.is_sorted(), "{tokens:?}");
    assert!(!streamed(&events).is_empty());

    // A page elsewhere asks whether it may, and is told which answers it may read.
    let origin = ("Origin", "https://chat.example");
    let question =
        [origin, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-a")];
    let reply = server.ask("OPTIONS", "/completion", &question, "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(origin.1)));
    assert_eq!(
        server.ask("GET", "/props", &[origin], "").header("access-control-allow-origin"),
        Some(origin.1)
    );
}
