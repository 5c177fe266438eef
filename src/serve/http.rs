//! HTTP: who may ask what, in which shape answers travel, and how the server ends.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use super::api::{Answer, ApiError, Kind, Service};
use super::connections;
use super::shared::{Health, locked};
use super::status::About;

/// Bytes of a request's body at most.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Bytes of answers on their way to a client at most, about: what a client does not take is soon noticed.
const SENT_BYTES_MAX: u32 = 128 << 10;
/// Connections that may wait to be accepted.
const CONNECTIONS_WAITING_MAX: u32 = 1024;
/// A stream with nothing to say for so long shows that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Seconds after which a client may ask again where the queue is full.
const RETRY_SECONDS: u64 = 1;
/// The page at `/`.
const PAGE: &str = include_str!("../../assets/web/index.html");

/// What the server lets whom do.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What clients have to know, if anything.
    pub api_key: Option<String>,
    /// Origins of web pages that may ask, besides those on this machine; `*` is any.
    pub origins: Vec<String>,
    /// How long a client may take for the next piece of its request or answer.
    pub client_timeout: Option<Duration>,
}

/// What all requests share.
pub struct Server {
    /// Understands requests.
    pub service: Service,
    /// What the page shows.
    pub about: About,
    /// Who may ask.
    pub access: Access,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, json_body(&self.json())).into_response();
        if self.status == 429 {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_SECONDS.into());
        }
        response
    }
}

fn json_body(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

/// Everything that can be asked for.
pub fn routes(server: Arc<Server>) -> Router {
    let chat =
        |server: State<Arc<Server>>, request: Request| answer(server, (Kind::Chat, Words::OpenAi), request);
    let completion = |server: State<Arc<Server>>, request: Request| {
        answer(server, (Kind::Completion, Words::OpenAi), request)
    };
    let llamas = |server: State<Arc<Server>>, request: Request| {
        answer(server, (Kind::Completion, Words::Llama), request)
    };
    let tokenize = |State(server), request| small(server, request, Service::tokenize);
    let detokenize = |State(server), request| small(server, request, Service::detokenize);
    let apply_template = |State(server), request| small(server, request, Service::apply_template);
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/timeline", get(timeline))
        .route("/props", get(props))
        .route("/slots", get(slots))
        .route("/completion", post(llamas))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/v1/models", get(models))
        .route("/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/completions", post(completion))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard))
        .with_state(server)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(404, format!("there is no {} here; see /v1/models, /v1/chat/completions or /", uri.path()))
        .with_code("unknown_url")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(405, format!("{} does not take {method}", uri.path()))
}

/// Checks who asks, answers browsers that ask whether they may, and counts.
async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let metrics = &server.service.shared.metrics;
    metrics.http_requests.add(1);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| server.access.lets(origin));
    let is_question = request.method() == Method::OPTIONS && allowed.is_some();
    let is_public = matches!(request.uri().path(), "/" | "/health" | "/v1/health");
    let mut response = match () {
        () if is_question => StatusCode::NO_CONTENT.into_response(),
        () if is_public || server.access.knows(request.headers()) => next.run(request).await,
        () => ApiError::new(401, "expected the server's API key as `Authorization: Bearer ...`; give it")
            .with_code("invalid_api_key")
            .into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        metrics.http_errors.add(1);
    }
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if is_question {
            let (methods, names) = ("GET, POST, OPTIONS", "authorization, content-type, *");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(names));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}

impl Access {
    /// Whether a page of this origin may ask: one on this machine, or one that was named.
    fn lets(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let host = origin.split_once("://").map(|(_, host)| host);
        let name = host.map(|host| match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        });
        let is_here = name.is_some_and(|name| ["localhost", "127.0.0.1", "::1"].contains(&name));
        is_here || self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }

    /// Whether a request has the key.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.api_key else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default().trim();
        // In a time that does not tell how much of it was right.
        let differs = given.bytes().zip(key.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        given.len() == key.len() && differs == 0
    }
}

async fn page() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, PAGE)
}

/// Whether texts can be written, for whoever sends requests here or starts the server again.
async fn health(State(server): State<Arc<Server>>) -> Response {
    let unwell = |status: &str, reason: &str| {
        let body =
            json!({"status": status, "error": {"code": 503, "message": reason, "type": "server_error"}});
        (StatusCode::SERVICE_UNAVAILABLE, json_body(&body)).into_response()
    };
    match server.service.shared.health() {
        Health::Well => json_body(&json!({"status": "ok"})).into_response(),
        Health::Recovering(reason) => unwell("recovering", &format!("{reason}; the model is loaded again")),
        Health::Broken(reason) => unwell("error", &reason),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let shared = &server.service.shared;
    shared.metrics.queue_length.set(shared.queue.len() as u64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.page())
}

async fn status(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let Service { model, shared, .. } = &server.service;
    shared.metrics.queue_length.set(shared.queue.len() as u64);
    json_body(&server.about.json(model, &shared.metrics))
}

async fn timeline(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let timeline = locked(&server.service.shared.timeline).clone();
    json_body(&timeline.map_or(Value::Null, |timeline| timeline.json()))
}

async fn props(State(server): State<Arc<Server>>) -> impl IntoResponse {
    json_body(&server.service.props())
}

async fn slots(State(server): State<Arc<Server>>) -> impl IntoResponse {
    json_body(&server.service.slots())
}

/// What one of the service's smaller questions comes to.
async fn small(
    server: Arc<Server>,
    request: Request,
    question: fn(&Service, &[u8]) -> Result<Value, ApiError>,
) -> Result<Response, ApiError> {
    let body = server.body(request).await?;
    let answer = tokio::task::spawn_blocking(move || question(&server.service, &body)).await;
    let answer = answer.map_err(|_| unread())??;
    Ok(json_body(&answer).into_response())
}

fn unread() -> ApiError {
    ApiError::new(500, "the request could not be read: a bug; please report it")
}

fn model_object(server: &Server) -> Value {
    let model = &server.service.model;
    json!({"id": model.name, "object": "model", "created": model.created, "owned_by": "pipo-wgpu",
           "meta": {"n_ctx": model.context, "n_vocab": model.vocab_size}})
}

async fn models(State(server): State<Arc<Server>>) -> impl IntoResponse {
    json_body(&json!({"object": "list", "data": [model_object(&server)]}))
}

async fn model(State(server): State<Arc<Server>>, uri: Uri) -> Result<Response, ApiError> {
    let name = uri.path().trim_start_matches("/v1/models/");
    match name == server.service.model.name || name.replace("%2F", "/") == server.service.model.name {
        true => Ok(json_body(&model_object(&server)).into_response()),
        false => Err(ApiError::new(404, format!("there is no model {name} here; see /v1/models"))
            .with_code("model_not_found")),
    }
}

/// In whose words an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    OpenAi,
    Llama,
}

async fn answer(
    State(server): State<Arc<Server>>,
    (kind, words): (Kind, Words),
    request: Request,
) -> Result<Response, ApiError> {
    let body = server.body(request).await?;
    let asking = Arc::clone(&server);
    // Templates and grammars may take a while, in which other streams go on.
    let asked = tokio::task::spawn_blocking(move || match words {
        Words::OpenAi => asking.service.understand(kind, &body),
        Words::Llama => asking.service.understand_llamas(&body),
    });
    let asked = asked.await.map_err(|_| unread())??;
    let answer = server.service.begin(asked)?;
    if answer.stream {
        return Ok(events(answer, server, words));
    }
    let whole = answer.whole().await?;
    let whole = match words {
        Words::OpenAi => whole,
        Words::Llama => server.service.in_llamas_words(&whole).unwrap_or(whole),
    };
    Ok(json_body(&whole).into_response())
}

impl Server {
    /// The body of a request, which has to come in time.
    pub(super) async fn body(&self, request: Request) -> Result<Bytes, ApiError> {
        let Some(most) = self.access.client_timeout else { return body(request).await };
        tokio::time::timeout(most, body(request)).await.unwrap_or_else(|_| {
            let problem = format!("the body did not come within {} s; send it at once", most.as_secs_f32());
            Err(ApiError::new(408, problem))
        })
    }
}

async fn body(request: Request) -> Result<Bytes, ApiError> {
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let too_large = || {
        let problem = format!("the body has more than {BODY_BYTES_MAX} bytes, which is all that is read");
        ApiError::new(413, problem)
    };
    if declared.is_some_and(|bytes: u64| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|problem| {
        let is_limit = std::error::Error::source(&problem)
            .is_some_and(|source| source.to_string().contains("length limit"));
        match is_limit {
            true => too_large(),
            false => ApiError::bad("", format!("the body could not be read: {problem}")),
        }
    })
}

/// An answer as server-sent events.
fn events(answer: Answer, server: Arc<Server>, words: Words) -> Response {
    let next = move |state: Option<Answer>| {
        let server = Arc::clone(&server);
        async move {
            let mut answer = state?;
            let (line, state) = match tokio::time::timeout(SILENCE_MAX, answer.event()).await {
                Ok(Some(event)) => {
                    let event = match words {
                        Words::OpenAi => Some(event),
                        Words::Llama => server.service.in_llamas_words(&event),
                    };
                    (event.map_or_else(String::new, |event| format!("data: {event}\n\n")), Some(answer))
                }
                Ok(None) if words == Words::Llama => return None,
                Ok(None) => ("data: [DONE]\n\n".to_owned(), None),
                Err(_) => (": still at work\n\n".to_owned(), Some(answer)),
            };
            Some((Ok::<_, Infallible>(line), state))
        }
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream::unfold(Some(answer), next))).into_response()
}

/// Answers requests until `end` is over, and then those that have begun.
pub async fn serve(listener: TcpListener, server: Arc<Server>, end: impl Future<Output = ()>) {
    let patience = server.access.client_timeout;
    connections::serve(listener, routes(server), patience, end).await;
}

/// Takes an address to listen on.
///
/// # Errors
/// When somebody else has it, or it is not of this machine.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Whoever ended a moment ago is no reason to wait. Elsewhere that would let two listen at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Connections have it from here.
    socket.set_send_buffer_size(SENT_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(CONNECTIONS_WAITING_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_on_this_machine_may_ask_and_others_when_named() {
        let named = Access { origins: vec!["https://chat.example".into()], ..Access::default() };
        for (origin, lets) in [
            ("http://localhost:5173", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:80", true),
            ("https://chat.example", true),
            ("http://localhost.evil.example", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(named.lets(&HeaderValue::from_static(origin)), lets, "{origin}");
        }
        let any = Access { origins: vec!["*".into()], ..Access::default() };
        assert!(any.lets(&HeaderValue::from_static("null")));
    }

    #[test]
    fn the_key_is_compared_whole() {
        let access = Access { api_key: Some("secret".into()), ..Access::default() };
        let mut headers = HeaderMap::new();
        assert!(!access.knows(&headers) && Access::default().knows(&headers));
        for (given, knows) in [
            ("Bearer secret", true),
            ("Bearer secre", false),
            ("Bearer secret1", false),
            ("secret", false),
            ("Bearer ", false),
        ] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(given));
            assert_eq!(access.knows(&headers), knows, "{given}");
        }
    }
}
