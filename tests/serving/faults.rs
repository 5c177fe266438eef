//! Engines that fail under a server: lost devices, panics, logits that are no numbers, clients that stall.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipo_wgpu::engine::{Engine, Options};
use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::gpu::{AdapterChoice, Gpu};
use pipo_wgpu::model::Op;
use pipo_wgpu::plan::{Budget, Home, Work};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::SamplerOptions;
use pipo_wgpu::serve::api::{Kind, Service};
use pipo_wgpu::serve::http::{self, Access};
use pipo_wgpu::serve::status::About;
use pipo_wgpu::serve::{Ended, Health, Remake, Shared, Writer};
use pipo_wgpu::text::Tokenizer;
use pipo_wgpu::trace::Trace;
use serde_json::{Value, json};

use super::client::{PATIENCE, Reply, Server};
use super::with;
use crate::common::{Model, fixture};

const CONTEXT: u32 = 128;
const TEXTS: u32 = 4;

/// A server in this process, whose device can be lost.
struct Site {
    server: Server,
    shared: Arc<Shared>,
    gpu: Arc<Mutex<Arc<Gpu>>>,
    writer: Writer,
    end: tokio::sync::oneshot::Sender<()>,
}

fn open() -> Arc<Gpu> {
    Gpu::open(&AdapterChoice::Best).unwrap()
}

/// An engine on a device of its own; the table is where chains find it.
fn engine(model: &Model, gpu: &Arc<Gpu>) -> Engine {
    let work = Work { batch: TEXTS, ..Work::default() };
    let options = Options { cache_rows: TEXTS * CONTEXT, work, ..Options::default() };
    let budget = Budget { vram_bytes: 256 << 20, threads: 1, ..Budget::default() };
    let mut plan = model.plan(&options, &budget).unwrap();
    plan.table = Some(Home::Vram);
    model.engine_on(gpu, plan, &options)
}

/// `w17` is token 17.
fn words(vocab_size: u32) -> Tokenizer {
    let vocab: serde_json::Map<String, Value> =
        (0..vocab_size).map(|id| (format!("w{id}"), id.into())).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

/// What requests need to know of a model of so many words.
fn described(vocab_size: u32) -> pipo_wgpu::serve::Model {
    let tokenizer = words(vocab_size);
    pipo_wgpu::serve::Model {
        name: "test".into(),
        pieces: tokenizer.pieces(vocab_size).unwrap().into(),
        tokenizer,
        generation: Default::default(),
        chat: None,
        sampling: SamplerOptions::default(),
        context: CONTEXT,
        vocab_size,
        created: 0,
    }
}

impl Site {
    /// Serves a model; `contexts` are what the engine's thread believes, `remake` what it does once its
    /// engine has failed.
    fn start(
        model: &Arc<Model>,
        contexts: u32,
        remake: impl Fn(&Model, &Gpu) -> Result<Option<Engine>> + Send + 'static,
    ) -> Site {
        let gpu = Arc::new(Mutex::new(open()));
        let engine_now = engine(model, &gpu.lock().unwrap());
        let plan = engine_now.plan().clone();
        let (model, held) = (Arc::clone(model), Arc::clone(&gpu));
        let vocab_size = model.decoder.vocab_size;
        let again: Remake = Box::new(move |_| {
            let fresh = open();
            let made = remake(&model, &fresh)?.unwrap_or_else(|| engine(&model, &fresh));
            *held.lock().unwrap() = fresh;
            Ok(made)
        });
        let shared = Arc::new(Shared::new(8));
        let contexts = vec![contexts; TEXTS as usize];
        let (writer, _) = Writer::start((engine_now, again), contexts, &shared, Trace::off()).unwrap();
        let described = described(vocab_size);
        let about = About {
            model: String::new(),
            gpu: String::new(),
            route: String::new(),
            units: Vec::new(),
            plan,
            vram_bytes: 0,
        };
        let service = Service::new(Arc::new(described), Arc::clone(&shared));
        let site = Arc::new(http::Server { service, about, access: Access::default() });
        let (end, ended) = tokio::sync::oneshot::channel();
        let (say, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
                say.send(listener.local_addr().unwrap().to_string()).unwrap();
                let end = async { drop(ended.await) };
                http::serve(listener, site, end).await;
            });
        });
        Site { server: Server::at(address.recv().unwrap()), shared, gpu, writer, end }
    }

    fn lose_device(&self) {
        self.gpu.lock().unwrap().device.destroy();
    }

    fn end(self) -> Result<Ended> {
        self.shared.end_within(Duration::ZERO);
        // Nobody listens where the server has ended first.
        let _ = self.end.send(());
        self.writer.join()
    }
}

fn plain() -> Arc<Model> {
    Arc::new(Model::new(&fixture("llama3_gqa"), WeightKind::W4))
}

/// Texts of all kinds: the likeliest, drawn by the GPU, by the CPU, with likelihoods.
fn texts() -> [Value; TEXTS as usize] {
    let base = json!({"prompt": "w5 w6 w7 w8 w9", "max_tokens": 40, "ignore_eos": true, "stream": true});
    [
        json!({"temperature": 0}),
        json!({"temperature": 1, "seed": 3, "prompt": "w11"}),
        json!({"temperature": 1, "seed": 4, "repetition_penalty": 1.2}),
        json!({"temperature": 0, "prompt": "w20 w21", "logprobs": 1, "frequency_penalty": 0.3}),
    ]
    .map(|more| with(base.clone(), more))
}

/// The text of a stream, and how many of its events had some; `meanwhile` hears of each.
fn read(stream: TcpStream, mut meanwhile: impl FnMut(usize)) -> (String, Vec<Value>) {
    let (mut text, mut events) = (String::new(), Vec::new());
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let Some(event) = line.strip_prefix("data: ").filter(|event| *event != "[DONE]") else { continue };
        let event: Value = serde_json::from_str(event).unwrap();
        text.push_str(event["choices"][0]["text"].as_str().unwrap_or_default());
        events.push(event);
        meanwhile(events.len());
    }
    (text, events)
}

fn send(site: &Site, body: &Value) -> TcpStream {
    site.server.send("POST", "/v1/completions", &[], &body.to_string())
}

#[test]
fn texts_go_on_where_they_were_when_the_device_is_lost() {
    let model = plain();
    let all = |lose: &[usize]| {
        let site = Site::start(&model, CONTEXT, |_, _| Ok(None));
        let streams = texts().map(|body| send(&site, &body));
        let read_all = std::thread::scope(|scope| {
            let site = &site;
            let readers = streams.into_iter().enumerate().map(|(number, stream)| {
                scope.spawn(move || {
                    // The first reader is the one who has a hand on the device.
                    read(stream, |events| {
                        if number == 0 && lose.contains(&events) {
                            site.lose_device();
                        }
                    })
                })
            });
            let readers: Vec<_> = readers.collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(site.server.metric("pipo_engine_failures_total"), lose.len() as f64);
        site.server.wait_for("pipo_texts_total{outcome=\"done\"}", f64::from(TEXTS));
        assert_eq!(site.server.get("/health").status, 200);
        assert_eq!(site.end().unwrap(), Ended { cut: 0 });
        read_all
    };
    let (calm, lost) = (all(&[]), all(&[8, 20]));
    for (number, ((text, events), (again, after))) in calm.iter().zip(&lost).enumerate() {
        assert!(events.len() > 35, "text {number}: {} events", events.len());
        assert_eq!(text, again, "text {number}");
        assert_eq!(events.len(), after.len(), "text {number}: nothing is lost or said twice");
    }
}

#[test]
fn a_server_without_an_engine_says_so() {
    for panics in [false, true] {
        let site = Site::start(&plain(), CONTEXT, move |_, _| match panics {
            true => panic!("there is no card"),
            false => Err(Error::NoAdapter("there is no card".into())),
        });
        let stream = send(&site, &texts()[0]);
        let start = Instant::now();
        let (_, events) = read(stream, |events| {
            if events == 5 {
                site.lose_device();
            }
        });
        let error = &events.last().unwrap()["error"];
        assert_eq!(error["code"], "engine_failed", "{error}");
        assert!(error["message"].as_str().unwrap().contains("there is no card"), "{error}");
        for reply in [
            site.server.post("/v1/completions", &json!({"prompt": "w1", "max_tokens": 1})),
            site.server.get("/health"),
        ] {
            let error = reply.json(503);
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains("start the server again"), "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        assert!(matches!(site.shared.health(), Health::Broken(_)));
        site.server.wait_for("pipo_slots_busy", 0.0);
        let problem = site.end().unwrap_err().to_string();
        assert!(problem.contains("there is no card"), "{problem}");
    }
}

/// A text that breaks every engine is given up, and no other.
#[test]
fn a_panic_ends_the_text_that_it_comes_with() {
    // The thread believes in shorter contexts than requests are checked against: a bug, as one might be.
    let site = Site::start(&plain(), 24, |_, _| Ok(None));
    let other = with(texts()[0].clone(), json!({"max_tokens": 15}));
    let alone = read(send(&site, &other), |_| {}).0;
    let long = json!({"prompt": "w5 ".repeat(30), "max_tokens": 5});
    let broken = send(&site, &long);
    let error = Reply::read(broken).json(500);
    assert!(error["error"]["message"].as_str().unwrap().contains("a bug"), "{error}");
    assert_eq!(read(send(&site, &other), |_| {}).0, alone);
    assert_eq!(site.server.get("/health").status, 200);
    assert_eq!(site.end().unwrap(), Ended { cut: 0 });
}

/// A copy of a fixture whose token has a row of zeros in the table, which norms without an epsilon
/// make NaN of.
fn with_zeros(token: usize) -> (tempfile::TempDir, Arc<Model>) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("llama3_gqa")).unwrap() {
        let path = entry.unwrap().path();
        let to = folder.path().join(path.file_name().unwrap());
        std::fs::copy(&path, &to).unwrap();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            zero_row(&to, "model.embed_tokens.weight", token);
        }
    }
    let without_epsilon = |decoder: &mut pipo_wgpu::model::Decoder| {
        for op in decoder.units.iter_mut().flat_map(|unit| &mut unit.ops) {
            if let Op::RmsNorm { eps, .. } = op {
                *eps = 0.0;
            }
        }
    };
    let model = Model::changed(folder.path(), WeightKind::W4, without_epsilon);
    (folder, Arc::new(model))
}

fn zero_row(path: &Path, name: &str, row: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensor = &header[name];
    if tensor.is_null() {
        return;
    }
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let [start, end] = [0, 1].map(|at| 8 + length + number(&tensor["data_offsets"][at]));
    let row_bytes = (end - start) / number(&tensor["shape"][0]);
    bytes[start + row * row_bytes..][..row_bytes].fill(0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn logits_that_are_no_numbers_end_one_text_and_no_other() {
    let (_folder, model) = with_zeros(33);
    let site = Site::start(&model, CONTEXT, |_, _| Ok(None));
    // Three that never come to say that token.
    let texts: Vec<Value> = ["w5 w6 w7", "w8", "w20 w21"]
        .iter()
        .map(|prompt| with(texts()[0].clone(), json!({"prompt": prompt, "max_tokens": 20})))
        .collect();
    let alone: Vec<_> = texts.iter().map(|body| read(send(&site, body), |_| {}).0).collect();
    // Where likelihoods are wanted of the prompt, it is the first token of it.
    for (number, (more, place)) in [
        (json!({"temperature": 0}), "after token 3 of this text"),
        (json!({"temperature": 1}), "after token 3 of this text"),
        (json!({"temperature": 0, "logprobs": 2}), "after token 3 of this text"),
        (json!({"temperature": 0, "logprobs": 2, "echo": true}), "after token 1 of this text"),
    ]
    .into_iter()
    .enumerate()
    {
        // Beside three texts that have begun.
        let others: Vec<_> = texts.iter().map(|body| send(&site, body)).collect();
        let broken = with(json!({"prompt": "w33 w5 w6", "max_tokens": 3}), more);
        let error = site.server.post("/v1/completions", &broken).json(500);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("not finite") && message.contains(place), "{number}: {error}");
        for (other, stream) in others.into_iter().enumerate() {
            assert_eq!(read(stream, |_| {}).0, alone[other], "{number}: text {other}");
        }
    }
    site.server.wait_for("pipo_texts_total{outcome=\"failed\"}", 4.0);
    // The same for one who comes to say that token while passes go ahead of the CPU.
    let drawn = |seed: u32| {
        let other = send(&site, &texts[0]);
        let body = json!({"prompt": "w7", "max_tokens": 60, "temperature": 4, "seed": seed, "stream": true,
            "ignore_eos": true});
        let (_, events) = read(send(&site, &body), |_| {});
        assert_eq!(read(other, |_| {}).0, alone[0]);
        events.last().unwrap()["error"].is_object() && events.len() > 5
    };
    assert!((0..80).any(drawn), "no seed says a token among {}", model.decoder.vocab_size);
    assert!(site.server.metric("pipo_chained_passes_total") > 0.0);
    assert_eq!(site.server.metric("pipo_engine_failures_total"), 0.0);
    assert_eq!(site.end().unwrap(), Ended { cut: 0 });
}

#[test]
fn a_client_that_takes_nothing_is_let_go_and_others_are_not_slowed() {
    let server = Server::start("--parallel 5 --context 1000 --client-timeout 1");
    // Likelihoods, so that much has to be sent.
    let much = json!({"prompt": "One day", "max_tokens": 900, "ignore_eos": true, "stream": true,
        "n": 4, "logprobs": 20, "temperature": 0});
    let stalled = server.send("POST", "/v1/completions", &[], &much.to_string());
    server.wait_for("pipo_slots_busy", 4.0);
    let quick = json!({"prompt": "The", "max_tokens": 4, "temperature": 0});
    let start = Instant::now();
    while server.metric("pipo_texts_total{outcome=\"cancelled\"}") < 4.0 {
        assert_eq!(server.complete(&quick)["usage"]["completion_tokens"], 4);
        assert!(start.elapsed() < PATIENCE, "nobody looks whether answers are taken");
    }
    server.wait_for("pipo_slots_busy", 0.0);
    // The connection is closed, though the client holds on to it.
    let mut rest = Vec::new();
    let _ = (&stalled).take(1 << 30).read_to_end(&mut rest);
    assert!(!rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"));
    // A body that never comes is not waited for either.
    let mut half = TcpStream::connect(&server.address).unwrap();
    std::io::Write::write_all(
        &mut half,
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{",
    )
    .unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(Reply::read(half).status, 408);
}

/// An answer whose text is with an engine that does not come back in time, and one that waits behind it.
#[test]
fn answers_do_not_wait_for_an_engine_for_ever() {
    let shared = Arc::new(Shared::new(4));
    let service = Service::new(Arc::new(described(16)), Arc::clone(&shared));
    let ask = || {
        let asked = service.understand(Kind::Completion, br#"{"prompt": [1, 2], "max_tokens": 3}"#);
        service.begin(asked.unwrap()).unwrap()
    };
    let begun = ask();
    let _with_the_engine = shared.queue.pop().unwrap();
    let waiting = ask();
    shared.hang_up();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for answer in [begun, waiting] {
        let refusal = runtime.block_on(answer.whole()).unwrap_err();
        assert_eq!(refusal.json()["error"]["code"], "shutting_down", "{}", refusal.json());
    }
    assert_eq!(shared.given_up(), 1);
}
