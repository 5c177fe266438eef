//! Text to tokens and tokens back to text.

pub mod chat;
pub mod generation_config;
pub(crate) mod marks;
pub mod stop;
pub mod stream;
pub mod tokenizer;

pub use generation_config::GenerationConfig;
pub use stop::StopMatcher;
pub use stream::StreamDecoder;
pub use tokenizer::{Tokenizer, check_ids};
