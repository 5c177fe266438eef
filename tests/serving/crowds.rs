//! Many clients at once, clients that leave, queues that are full, and the end of the server.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{PATIENCE, Reply, Server};
use super::{greedy, streamed, with};

const PROMPTS: [&str; 8] = [
    "One day",
    "The dragon was sad because",
    "Once upon a time there was a boy called Tom. He liked",
    "A",
    "Lily and her mom went to the park. They saw a big",
    "\"Hello,\" said the fox.",
    "",
    "It was raining, so the little cat",
];

#[test]
fn sixty_four_clients_each_have_the_text_that_they_would_have_alone() {
    let server = Server::start("--parallel 12 --context 64");
    let body = |prompt: &str, stream: bool| with(greedy(prompt, 6), json!({ "stream": stream }));
    let alone = PROMPTS.map(|prompt| {
        let answer = server.chat(&body(prompt, false));
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    });
    let before = server.metric("pipo_passes_total{class=\"decode\"}");
    std::thread::scope(|scope| {
        let clients = (0..64).map(|number| {
            let (server, body) = (&server, body(PROMPTS[number % 8], number % 3 == 0));
            scope.spawn(move || {
                let reply = server.post("/v1/chat/completions", &body);
                match body["stream"] == true {
                    true => streamed(&reply.events()),
                    false => {
                        let answer = reply.json(200);
                        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
                    }
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        for (number, client) in clients.into_iter().enumerate() {
            assert_eq!(client.join().unwrap(), alone[number % 8], "client {number}");
        }
    });
    let passes = server.metric("pipo_passes_total{class=\"decode\"}") - before;
    // Each alone would take five or six passes of its own.
    assert!(passes < 64.0 * 5.0 / 3.0, "{passes} passes for 64 texts: they are to share them");
    assert!(server.metric("pipo_chained_passes_total") > 0.0, "the CPU was between any two tokens");
    server.wait_for("pipo_texts_total{outcome=\"done\"}", 72.0);
    assert_eq!(server.metric("pipo_texts_total{outcome=\"failed\"}"), 0.0);
}

/// A request that would take minutes.
fn endless() -> Value {
    with(greedy("One day", 900), json!({"stream": true, "ignore_eos": true}))
}

/// Reads the first event, so that the text is being written.
fn begun(server: &Server, body: &Value) -> BufReader<std::net::TcpStream> {
    let stream = server.send("POST", "/v1/chat/completions", &[], &body.to_string());
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"content\":\",") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
    }
    reader
}

#[test]
fn who_leaves_frees_a_slot_and_who_comes_too_late_is_told_so() {
    let server = Server::start("--parallel 1 --context 1000 --queue 1");
    let first = begun(&server, &endless());
    server.wait_for("pipo_slots_busy", 1.0);
    // One may wait, the next may not.
    let waiting = server.send("POST", "/v1/chat/completions", &[], &greedy("The", 2).to_string());
    server.wait_for("pipo_queue_length", 1.0);
    let refused = server.post("/v1/chat/completions", &greedy("A", 2));
    assert_eq!(refused.json(429)["error"]["code"], "queue_full");
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    // The first one leaves: the slot is free for the one that waits.
    drop(first);
    assert_eq!(Reply::read(waiting).json(200)["usage"]["completion_tokens"], 2);
    server.wait_for("pipo_texts_total{outcome=\"cancelled\"}", 1.0);
    server.wait_for("pipo_slots_busy", 0.0);
    // Whoever wants no stream can leave as well, also while a long prompt is read.
    let long = "and then the dog ran to the cat ".repeat(90);
    let leaving = server.send("POST", "/v1/chat/completions", &[], &greedy(&long, 900).to_string());
    server.wait_for("pipo_slots_busy", 1.0);
    drop(leaving);
    server.wait_for("pipo_texts_total{outcome=\"cancelled\"}", 2.0);
    server.wait_for("pipo_slots_busy", 0.0);
    // Of a text that waits, nothing is ever written.
    let first = begun(&server, &endless());
    let waiting = server.send("POST", "/v1/chat/completions", &[], &greedy("The", 2).to_string());
    server.wait_for("pipo_queue_length", 1.0);
    drop(waiting);
    // Once the server has noticed, there is room for another one.
    let start = Instant::now();
    let third = loop {
        let third = server.send("POST", "/v1/chat/completions", &[], &greedy("A", 2).to_string());
        third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        if third.peek(&mut [0]).is_err() {
            break third;
        }
        assert_eq!(Reply::read(third).status, 429);
        assert!(start.elapsed() < PATIENCE, "the queue does not forget who left");
    };
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(first);
    assert_eq!(Reply::read(third).json(200)["usage"]["completion_tokens"], 2);
}

/// Passes that go ahead of the CPU are for nobody's harm: who comes waits for two of them, and whoever
/// wants what the GPU does not do has it.
#[test]
fn passes_go_ahead_until_somebody_comes() {
    let server = Server::start("--parallel 3 --context 1000");
    let chained = || server.metric("pipo_chained_passes_total");
    let drawn = json!({"temperature": 1.1, "seed": 9, "min_p": 0.02});
    let (likeliest, seeded) = (greedy("One day", 24), with(greedy("The dragon", 24), drawn));
    let bodies = [&likeliest, &seeded].map(|body| with(body.clone(), json!({"ignore_eos": true})));
    let texts = |answer: &Value| answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    // What a text says where nothing is chained: a neighbour with likelihoods stops that.
    let beside = with(endless(), json!({"logprobs": true}));
    let neighbour = begun(&server, &beside);
    let before = chained();
    let alone = bodies.clone().map(|body| texts(&server.chat(&body)));
    assert_eq!(chained(), before, "what the CPU chooses cannot go ahead");
    drop(neighbour);
    server.wait_for("pipo_slots_busy", 0.0);
    assert_eq!(bodies.clone().map(|body| texts(&server.chat(&body))), alone);
    assert!(chained() > before);
    // Texts that join and leave while others go ahead.
    let long = begun(&server, &endless());
    let start = chained();
    let answers = std::thread::scope(|scope| {
        let asked = bodies.each_ref().map(|body| scope.spawn(|| texts(&server.chat(body))));
        asked.map(|answer| answer.join().unwrap())
    });
    assert_eq!(answers, alone);
    assert!(chained() > start);
    // The long one goes on; those that ended are counted before the next pass.
    server.wait_for("pipo_slots_busy", 1.0);
    // A stop text ends it as soon as it is said.
    let stopped = server.chat(&with(bodies[0].clone(), json!({"stop": "girl", "max_tokens": 900})));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let passes = chained();
    server.wait_for("pipo_slots_busy", 1.0);
    assert!(chained() - passes < 100.0);
    drop(long);
    server.wait_for("pipo_slots_busy", 0.0);
    let idle = chained();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(chained(), idle, "nothing is written for nobody");
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_end_finishes_answers_and_cuts_those_that_take_too_long() {
    // What is nearly done is finished.
    let server = Server::start("--parallel 2 --context 1000 --patience 30");
    let short = begun(&server, &with(endless(), json!({"max_tokens": 40})));
    server.signal("-TERM");
    let lines: Vec<String> = short.lines().map(Result::unwrap).collect();
    assert!(lines.iter().any(|line| line == "data: [DONE]"), "{lines:?}");
    let (code, remarks) = server.end();
    assert_eq!(code, Some(0), "{remarks}");
    assert!(remarks.contains("ended") && !remarks.contains("cut"), "{remarks}");

    // What is not is cut, and says so.
    let server = Server::start("--parallel 1 --context 1000 --patience 0");
    let long = begun(&server, &endless());
    let waiting = server.send("POST", "/v1/chat/completions", &[], &greedy("The", 2).to_string());
    server.wait_for("pipo_queue_length", 1.0);
    let start = Instant::now();
    server.signal("-INT");
    let lines: Vec<String> = long.lines().map(Result::unwrap).collect();
    assert!(lines.iter().any(|line| line.contains("shutting_down")), "{lines:?}");
    assert_eq!(Reply::read(waiting).json(503)["error"]["code"], "shutting_down");
    let (code, remarks) = server.end();
    assert_eq!(code, Some(0), "{remarks}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(remarks.contains("1 answers were cut"), "{remarks}");
}
