//! Downloads from a small hub inside the test: redirects, ranges, cut connections, refusals.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// How the server behaves.
#[derive(Clone, Debug, Default)]
struct Manners {
    /// Status for everything.
    status: Option<u16>,
    /// Bytes of a content after which a connection is cut, as often as this says.
    cuts: usize,
    /// Whether ranges are ignored.
    no_ranges: bool,
    /// Whether contents differ from their hashes.
    damaged: bool,
    /// Whether the list of files has neither sizes nor hashes.
    terse: bool,
    /// Whether nothing is ever sent of a content.
    silent: bool,
    /// Whether the list of files comes byte by byte, and so for ever.
    dripping: bool,
    /// Whether every file has as many bytes as a number can say.
    boasting: bool,
}

/// A hub with one repository, `org/model`.
struct Server {
    endpoint: String,
    files: Arc<HashMap<String, Vec<u8>>>,
    manners: Arc<Mutex<Manners>>,
    /// Lines and interesting headers of what was asked.
    asked: Arc<Mutex<Vec<String>>>,
    cuts: Arc<AtomicUsize>,
}

impl Server {
    fn new(files: &[(&str, &[u8])]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Server {
            endpoint,
            files: Arc::new(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()),
            manners: Arc::default(),
            asked: Arc::default(),
            cuts: Arc::default(),
        };
        let shared = (Arc::clone(&server.files), Arc::clone(&server.manners));
        let (asked, cuts) = (Arc::clone(&server.asked), Arc::clone(&server.cuts));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, manners) = (Arc::clone(&shared.0), shared.1.lock().unwrap().clone());
                let (asked, cuts) = (Arc::clone(&asked), Arc::clone(&cuts));
                thread::spawn(move || serve(stream, &files, &manners, &asked, &cuts));
            }
        });
        server
    }

    fn behave(&self, manners: Manners) {
        self.cuts.store(manners.cuts, Ordering::SeqCst);
        *self.manners.lock().unwrap() = manners;
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: self.endpoint.clone(),
            cache: cache.to_path_buf(),
            token: None,
            offline: false,
            timeout_seconds: 1,
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn etag(bytes: &[u8], is_large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match is_large {
        true => hex(&sha2::Sha256::digest(bytes)),
        false => hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()))
            .chain_update(bytes)
            .finalize()),
    }
}

/// Answers one request and closes the connection.
fn serve(
    stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    manners: &Manners,
    asked: &Mutex<Vec<String>>,
    cuts: &AtomicUsize,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(a, b)| (a.to_lowercase(), b.to_owned())))
        .collect();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let shown = ["range", "authorization"].map(|name| headers.get(name).cloned().unwrap_or_default());
    asked.lock().unwrap().push(format!("{path} {}", shown.join(" ")).trim().to_owned());
    let mut stream = stream;
    let mut send = |status: &str, more: &str, body: &[u8]| {
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if let Some(status) = manners.status {
        return send(&format!("{status} No"), "", b"");
    }
    if let Some(rest) = path.strip_prefix("/api/models/org/model/revision/") {
        if !["main", "v1", COMMIT].contains(&rest.split('?').next().unwrap()) {
            return send("404 Not Found", "", b"");
        }
        let file = |(name, bytes): (&String, &Vec<u8>)| match (
            manners.terse,
            name.contains('.') && bytes.len() > 100,
        ) {
            (true, _) => json!({"rfilename": name}),
            _ if manners.boasting => {
                json!({"rfilename": name, "size": u64::MAX, "blobId": etag(bytes, false)})
            }
            (_, true) => json!({"rfilename": name, "size": bytes.len(),
                                "lfs": {"sha256": etag(bytes, true), "size": bytes.len()}}),
            _ => json!({"rfilename": name, "size": bytes.len(), "blobId": etag(bytes, false)}),
        };
        let mut siblings: Vec<Value> = files.iter().map(file).collect();
        siblings.push(json!({"rfilename": "../../escape.json", "size": 1, "blobId": "0"}));
        let answer = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        if manners.dripping {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
            return;
        }
        return send("200 OK", "", answer.as_bytes());
    }
    let name = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/"));
    if let Some(name) = name {
        let Some(bytes) = files.get(name) else { return send("404 Not Found", "", b"") };
        let about = format!(
            "Location: /content/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{}\"\r\n",
            etag(bytes, bytes.len() > 100)
        );
        // As the hub does for large files: the content is elsewhere.
        return send("302 Found", &about, b"");
    }
    let Some(bytes) = path.strip_prefix("/content/").and_then(|name| files.get(name)) else {
        return send("404 Not Found", "", b"");
    };
    let mut bytes = bytes.clone();
    if manners.damaged {
        bytes[0] ^= 1;
    }
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let from: usize = if manners.no_ranges { 0 } else { from.parse().unwrap() };
    let to: usize = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
    let part = &bytes[from.min(to)..to];
    let status = if manners.no_ranges { "200 OK" } else { "206 Partial Content" };
    let about = format!(
        "Content-Range: bytes {from}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
        to.saturating_sub(1),
        bytes.len(),
        etag(&bytes, bytes.len() > 100)
    );
    if manners.silent {
        thread::sleep(Duration::from_secs(5));
        return;
    }
    let is_cut = part.len() > 100
        && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
    if is_cut {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{about}\r\n", part.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&part[..part.len() / 2]));
        return;
    }
    send(status, &about, part);
}

fn weights() -> Vec<u8> {
    (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A repository with more than is wanted of it.
fn repository() -> Server {
    Server::new(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"t\": 1}"),
        ("tokenizer.model", b"old"),
        ("README.md", b"read"),
        ("pytorch_model.bin", b"pickle"),
        ("model.safetensors", &weights()),
        ("additional_chat_templates/tool_use.jinja", b"tools"),
        ("onnx/model.onnx", b"onnx"),
    ])
}

fn get(hub: &Hub, name: &str) -> Result<PathBuf> {
    hub.get(&HubName::parse(name).unwrap(), &mut |_| {}, &mut |_, _| {})
}

#[test]
fn what_is_needed_lies_where_other_tools_look_for_it() {
    for terse in [false, true] {
        let (server, cache) = (repository(), tempfile::tempdir().unwrap());
        server.behave(Manners { terse, ..Manners::default() });
        let hub = Hub { token: Some(TOKEN.into()), ..server.hub(cache.path()) };
        let mut heard = Vec::new();
        let name = HubName::parse("org/model").unwrap();
        let folder = hub.get(&name, &mut |_| {}, &mut |done, total| heard.push((done, total))).unwrap();
        let root = cache.path().join("models--org--model");
        assert_eq!(folder, root.join("snapshots").join(COMMIT));
        assert_eq!(
            names_in(&folder),
            [
                "additional_chat_templates/tool_use.jinja",
                "config.json",
                "model.safetensors",
                "tokenizer.json"
            ]
        );
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
        assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
        assert_eq!(fs::read(root.join("blobs").join(etag(&weights(), true))).unwrap(), weights());
        let link = fs::read_link(folder.join("additional_chat_templates/tool_use.jinja")).unwrap();
        assert_eq!(link, Path::new("../../../blobs").join(etag(b"tools", false)));
        let total = heard.last().unwrap().1;
        assert_eq!(*heard.last().unwrap(), (total, total));
        assert!(heard.is_sorted() && heard.len() > 4, "{heard:?}");
        assert!(server.asked().iter().all(|line| line.ends_with(&format!("Bearer {TOKEN}"))));
        // Once more: one question, and nothing comes.
        assert_eq!(get(&hub, "org/model").unwrap(), folder);
        let asked = server.asked();
        assert!(asked.iter().all(|line| !line.contains("/content/") || line.contains("0-0")), "{asked:?}");
        // Without a network, or without wanting one.
        let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
        assert_eq!(get(&offline, "org/model").unwrap(), folder);
        assert_eq!(get(&Hub { offline: false, ..offline }, "org/model").unwrap(), folder);
        assert!(server.asked().is_empty());
    }
}

#[test]
fn a_broken_download_goes_on_from_there() {
    let (server, cache) = (repository(), tempfile::tempdir().unwrap());
    server.behave(Manners { cuts: 3, ..Manners::default() });
    let hub = server.hub(cache.path());
    let folder = get(&hub, "org/model").unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<String> =
        server.asked().into_iter().filter(|line| line.contains("/content/model.safetensors")).collect();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert!(ranges[0].contains("bytes=0-") && ranges[1].contains("bytes=100000-"), "{ranges:?}");
    // A later run takes what an earlier one left.
    let blob = cache.path().join("models--org--model/blobs").join(etag(&weights(), true));
    fs::remove_file(&blob).unwrap();
    fs::write(blob.with_file_name(format!("{}.incomplete", etag(&weights(), true))), &weights()[..150_000])
        .unwrap();
    server.asked();
    get(&hub, "org/model").unwrap();
    assert_eq!(fs::read(&blob).unwrap(), weights());
    assert!(server.asked().iter().any(|line| line.contains("bytes=150000-")));
    // A server without ranges sends all again.
    fs::remove_file(&blob).unwrap();
    fs::write(blob.with_file_name(format!("{}.incomplete", etag(&weights(), true))), &weights()[..150_000])
        .unwrap();
    server.behave(Manners { no_ranges: true, ..Manners::default() });
    get(&hub, "org/model").unwrap();
    assert_eq!(fs::read(&blob).unwrap(), weights());
}

#[test]
fn damage_is_noticed() {
    let (server, cache) = (repository(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    server.behave(Manners { damaged: true, ..Manners::default() });
    let problem = get(&hub, "org/model").unwrap_err().to_string();
    assert!(problem.contains("arrived damaged") && problem.contains("its hash is"), "{problem}");
    server.behave(Manners::default());
    let folder = get(&hub, "org/model").unwrap();
    // What was cut short on the disk is fetched again; a part that is no part of it as well.
    let blob = cache.path().join("models--org--model/blobs").join(etag(&weights(), true));
    fs::write(&blob, &weights()[..5]).unwrap();
    assert_eq!(get(&hub, "org/model").unwrap(), folder);
    assert_eq!(fs::read(&blob).unwrap(), weights());
    fs::remove_file(&blob).unwrap();
    fs::write(blob.with_file_name(format!("{}.incomplete", etag(&weights(), true))), vec![7; 1000]).unwrap();
    assert!(get(&hub, "org/model").unwrap_err().to_string().contains("arrived damaged"));
    get(&hub, "org/model").unwrap();
    assert_eq!(fs::read(&blob).unwrap(), weights());
}

#[test]
fn refusals_are_one_sentence() {
    let (server, cache) = (repository(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let with_token = Hub { token: Some(TOKEN.into()), ..hub.clone() };
    for (status, hub, complaint) in [
        (401, &hub, "wants a token for this model, or it does not exist"),
        (401, &with_token, "does not accept the token"),
        (403, &with_token, "accept the model's terms"),
        (404, &hub, "no such model, or no revision `main`"),
        (418, &hub, "refuses with status 418"),
        (429, &hub, "too many requests"),
        (500, &hub, "a problem of its own (500)"),
        (503, &hub, "run it again later"),
    ] {
        server.behave(Manners { status: Some(status), ..Manners::default() });
        let problem = get(hub, "org/model").unwrap_err().to_string();
        assert!(problem.starts_with("org/model: ") && problem.contains(complaint), "{status}: {problem}");
        assert!(!problem.contains('\n') && !problem.contains(TOKEN), "{problem}");
    }
    server.behave(Manners::default());
    assert!(get(&hub, "org/model:v9").unwrap_err().to_string().contains("no revision `v9`"));
    let nobody = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    let problem = get(&nobody, "org/model").unwrap_err().to_string();
    assert!(problem.contains("cannot be reached") && problem.contains("--offline"), "{problem}");
    let offline = Hub { offline: true, ..hub };
    assert!(get(&offline, "org/model").unwrap_err().to_string().contains("not complete in the cache"));
}

#[test]
fn silence_ends_after_a_while() {
    let (server, cache) =
        (Server::new(&[("config.json", b"{}"), ("model.safetensors", b"w")]), tempfile::tempdir().unwrap());
    server.behave(Manners { silent: true, ..Manners::default() });
    let problem = get(&server.hub(cache.path()), "org/model").unwrap_err().to_string();
    assert!(problem.contains("cannot be reached"), "{problem}");
    server.behave(Manners { dripping: true, ..Manners::default() });
    let problem = get(&server.hub(cache.path()), "org/model").unwrap_err().to_string();
    assert!(problem.contains("cannot be reached"), "{problem}");
}

#[test]
fn sizes_that_cannot_be_are_no_panic() {
    let server = Server::new(&[("config.json", b"{}"), ("model.safetensors", &weights())]);
    let cache = tempfile::tempdir().unwrap();
    server.behave(Manners { boasting: true, ..Manners::default() });
    let problem = get(&server.hub(cache.path()), "org/model").unwrap_err().to_string();
    assert!(problem.contains("the connection was cut"), "{problem}");
}

#[test]
fn one_gguf_file_is_chosen() {
    let files: [(&str, &[u8]); 6] = [
        ("model-Q4_K_M.gguf", b"q4"),
        ("model-Q8_0.gguf", b"q8"),
        ("model-IQ4_NL.gguf", b"iq"),
        ("big/model-F16-00001-of-00002.gguf", b"a"),
        ("big/model-F16-00002-of-00002.gguf", b"b"),
        ("mmproj-F16.gguf", b"eye"),
    ];
    let (server, cache) = (Server::new(&files), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    for (name, content) in
        [("org/model", "q4"), ("org/model:q8_0", "q8"), ("org/model:Q8_0", "q8"), ("org/model:F16", "a")]
    {
        let path = get(&hub, name).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content, "{name}");
        let offline = Hub { offline: true, ..hub.clone() };
        assert_eq!(get(&offline, name).unwrap(), path);
    }
    assert!(
        cache
            .path()
            .join(format!("models--org--model/snapshots/{COMMIT}/big/model-F16-00002-of-00002.gguf"))
            .is_file()
    );
    let problem = get(&hub, "org/model:Q2_K").unwrap_err().to_string();
    assert!(
        problem.contains("a GGUF file of Q2_K, found") && problem.contains("model-Q8_0.gguf"),
        "{problem}"
    );
}
