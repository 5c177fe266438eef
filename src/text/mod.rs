//! Text to tokens and tokens back to text.

mod bounds;
mod caught;
pub mod chat;
pub mod files;
pub mod generation_config;
pub mod gguf;
mod growth;
mod guard;
pub(crate) mod marks;
pub mod old;
pub mod pieces;
pub mod stop;
pub mod stream;
pub mod tokenizer;

pub use caught::is_caught;
pub use chat::{Chat, ChatTemplate, ChatTemplates, encode_plainly};
pub use files::TextFiles;
pub use generation_config::GenerationConfig;
pub use pieces::Piece;
pub use stop::StopMatcher;
pub use stream::StreamDecoder;
pub use tokenizer::{TEXT_BYTES_MAX, Tokenizer, check_ids};
