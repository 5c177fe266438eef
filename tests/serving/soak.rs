//! Many random requests: nothing is lost, and nothing grows.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{PATIENCE, Reply, Server};

/// Clients that ask at the same time; more than there are slots.
const CLIENTS: usize = 12;
const SLOTS: usize = 4;
/// Threads that take requests apart at most: they come with the load, and go a while after it.
const READERS_MAX: usize = 16;
/// Bytes that the process may grow by after it has warmed up: allocators keep what was free for a moment.
const GROWTH_BYTES: u64 = 24 << 20;

/// Numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = ["One day", "the cat", "\"Hi,\"", "ran", "\n", "é🙂", "dragon", "because"];
        let words = 1 + self.below(24);
        (0..words).map(|_| WORDS[self.below(8) as usize]).collect::<Vec<_>>().join(" ")
    }
}

/// What has been seen of answers.
#[derive(Default)]
struct Seen {
    whole: AtomicUsize,
    left: AtomicUsize,
    refused: AtomicUsize,
    full: AtomicUsize,
}

/// One request of a random kind.
fn ask(server: &Server, random: &mut Random, seen: &Seen) {
    let mut body = json!({"prompt": random.text(), "max_tokens": random.below(12), "seed": random.below(9)});
    let mut path = "/v1/completions";
    match random.below(8) {
        0 => body["temperature"] = 0.into(),
        1 => body["logprobs"] = random.below(6).into(),
        2 => body["n"] = (1 + random.below(3)).into(),
        3 => body["stop"] = json!(["a", "."]),
        4 => body["repetition_penalty"] = 1.3.into(),
        5 => body["guided_regex"] = "[a-z]{1,6}".into(),
        6 => (body["echo"], body["logprobs"]) = (true.into(), 1.into()),
        _ => {
            path = "/v1/chat/completions";
            body["messages"] = json!([{"role": "user", "content": body["prompt"]}]);
        }
    }
    let count = |count: &AtomicUsize| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    match random.below(10) {
        0 => {
            // What is wrong with it is said, and costs nothing.
            let wrong = [
                json!({"prompt": 5}),
                json!({"prompt": "a", "temperature": -1}),
                json!({"prompt": "a ".repeat(400)}),
                json!({"prompt": "a", "guided_regex": "("}),
                json!([]),
            ];
            let wrong = &wrong[random.below(5) as usize];
            assert_eq!(server.post("/v1/completions", wrong).status, 400, "{wrong}");
            count(&seen.refused);
        }
        1 => {
            // Leaves before it has asked.
            let mut stream = TcpStream::connect(&server.address).unwrap();
            let part = &b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{\"pro"[..];
            stream.write_all(&part[..random.below(part.len() as u64) as usize]).unwrap();
            count(&seen.left);
        }
        kind @ 2..=4 => {
            // Leaves in the middle of a stream, or reads it slowly.
            body["stream"] = true.into();
            let stream = server.send("POST", path, &[], &body.to_string());
            let lines = random.below(12);
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            for _ in 0..lines {
                line.clear();
                if kind == 4 {
                    std::thread::sleep(Duration::from_millis(random.below(20)));
                }
                if reader.read_line(&mut line).unwrap() == 0 {
                    break;
                }
            }
            // The server may have closed it first.
            let _ = stream.shutdown(Shutdown::Both);
            count(&seen.left);
        }
        kind => {
            body["stream"] = (kind < 7).into();
            let reply = Reply::read(server.send("POST", path, &[], &body.to_string()));
            match reply.status {
                // Once more later, as clients do.
                429 => {
                    count(&seen.full);
                    std::thread::sleep(Duration::from_millis(20));
                    return ask(server, random, seen);
                }
                200 if kind < 7 => assert!(reply.body.ends_with("data: [DONE]\n\n"), "{}", reply.body),
                _ => assert!(reply.json(200)["choices"][0]["finish_reason"].is_string(), "{}", reply.body),
            }
            assert!(!reply.body.contains("\"error\""), "{}", reply.body);
            count(&seen.whole);
        }
    }
}

/// Lets clients ask so many things in all.
fn load(server: &Server, seed: u64, requests: usize, seen: &Seen) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS as u64 {
            let next = &next;
            scope.spawn(move || {
                let mut random = Random(seed ^ (client << 32));
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    ask(server, &mut random, seen);
                }
            });
        }
    });
    // Whoever left is noticed between two passes.
    for gauge in ["pipo_slots_busy", "pipo_queue_length"] {
        server.wait_for(gauge, 0.0);
    }
}

/// What a process has taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    resident_bytes: u64,
    threads: usize,
    files: usize,
    gpu_bytes: f64,
}

impl Taken {
    #[cfg(target_os = "linux")]
    fn by(server: &Server) -> Taken {
        let entries =
            |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", server.process())).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Taken {
            resident_bytes: kibibytes << 10,
            threads: entries("task"),
            files: entries("fd"),
            gpu_bytes: server.metric("pipo_gpu_memory_peak_bytes"),
        }
    }

    /// Whether nothing was left behind since it was `before`.
    fn check(&self, before: &Taken) {
        let Taken { resident_bytes, threads, files, gpu_bytes } = *before;
        assert!(self.resident_bytes <= resident_bytes + GROWTH_BYTES, "{before:?} became {self:?}");
        assert!(self.threads <= threads + READERS_MAX && self.files <= files, "{before:?} became {self:?}");
        assert_eq!(self.gpu_bytes, gpu_bytes);
    }

    /// The same once connections that were left are closed on the server's side as well.
    fn settled(server: &Server, files: usize) -> Taken {
        let start = Instant::now();
        loop {
            let taken = Taken::by(server);
            if taken.files <= files || start.elapsed() > PATIENCE {
                return taken;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(target_os = "linux")]
fn soak(seed: u64, rounds: usize, requests: usize) {
    let server = Server::start(&format!("--parallel {SLOTS} --context 128 --queue 12 --client-timeout 20"));
    let seen = Seen::default();
    let cold = Taken::by(&server);
    load(&server, seed, requests, &seen);
    let warm = Taken { threads: cold.threads, ..Taken::settled(&server, cold.files) };
    for round in 1..=rounds {
        load(&server, seed.wrapping_add(round as u64), requests, &seen);
        let taken = Taken::settled(&server, warm.files);
        eprintln!("after {} requests: {taken:?}", (round + 1) * requests);
        taken.check(&warm);
    }
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let all = [&seen.whole, &seen.left, &seen.refused].map(count);
    eprintln!("{all:?} whole, left, refused; told {} times to come later", count(&seen.full));
    assert_eq!(all.iter().sum::<usize>(), (rounds + 1) * requests, "none is lost");
    assert_eq!(server.metric("pipo_texts_total{outcome=\"failed\"}"), 0.0);
    assert_eq!(server.metric("pipo_engine_failures_total"), 0.0);
    // It still answers, and as at first.
    let answer: Value = server.complete(&json!({"prompt": "One day", "max_tokens": 4, "temperature": 0}));
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}

#[cfg(target_os = "linux")]
#[test]
fn a_few_hundred_random_requests_leave_nothing_behind() {
    soak(1, 1, 110);
}

/// `cargo test --release --test main soak -- --ignored --nocapture`
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes many minutes"]
fn thousands_of_random_requests_leave_nothing_behind() {
    soak(2, 9, 500);
}
