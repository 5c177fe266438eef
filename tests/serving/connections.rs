//! Clients that open connections and do not ask, or not to the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::client::{PATIENCE, Server};

#[test]
fn who_does_not_ask_in_time_has_left_and_who_waits_for_an_answer_has_not() {
    let server = Server::start("--parallel 1 --context 256 --client-timeout 1");
    let mut waiting = server.send(
        "POST",
        "/v1/completions",
        &[],
        r#"{"prompt": "One day", "max_tokens": 250, "temperature": 0, "ignore_eos": true}"#,
    );
    let connect = |said: &str| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream
    };
    let start = Instant::now();
    let heads = ["", "GET /health HTTP/1.1\r\nHost: x\r\nName: ", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"];
    for mut stream in heads.map(connect) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(30), "{took:?}");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("finish_reason"), "{answer}");
}
