//! Errors as OpenAI's API has them: a status, and an object that clients show.

use serde_json::{Value, json};

use crate::error::Error;
use crate::serve::job::Failure;
use crate::serve::queue::Refused;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The kind of error, by which clients choose an exception.
    pub kind: &'static str,
    /// For programs, where there is one.
    pub code: Option<&'static str>,
    /// The field that is wrong, where it is one.
    pub param: Option<String>,
    /// What was expected, what was found and what to do.
    pub message: String,
}

/// `Result` with an [`ApiError`].
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// A request that cannot be answered as it is.
    pub fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        let (param, message) = (param.into(), message.into());
        ApiError { param: Some(param).filter(|name| !name.is_empty()), ..Self::new(400, message) }
    }

    /// A field that would change the answer and is not implemented.
    pub fn unsupported(param: &str, advice: &str) -> Self {
        let message = format!("`{param}` is not supported by this server; {advice}");
        ApiError { code: Some("unsupported_parameter"), ..Self::bad(param, message) }
    }

    /// An error with a status, whose kind follows from it.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        ApiError { status, kind, code: None, param: None, message: message.into() }
    }

    /// The same with a code for programs.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        ApiError { code: Some(code), ..self }
    }

    /// The body of the answer.
    pub fn json(&self) -> Value {
        let ApiError { kind, code, param, message, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Usage(_) | Error::Unsupported(_) => ApiError::new(400, error.to_string()),
            other => ApiError::new(500, other.to_string()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::ShuttingDown => ApiError::new(503, "the server is ending; ask another, or again later")
                .with_code("shutting_down"),
            Failure::Impossible(problem) => ApiError::new(400, problem),
            Failure::Broken(problem) => ApiError::new(500, problem),
            Failure::Unavailable(problem) => ApiError::new(503, problem).with_code("engine_failed"),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => ApiError::new(429, "as many texts wait as may wait; ask again in a moment")
                .with_code("queue_full"),
            Refused::Closed => Failure::ShuttingDown.into(),
        }
    }
}
