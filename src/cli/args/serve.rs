//! Options of `serve`.

use std::net::IpAddr;

use super::{BudgetArgs, DeviceArgs, ModelArgs, SamplingArgs};

/// Shown behind the options.
pub(super) const EXAMPLES: &str = "\
Examples:
  pipo-wgpu serve ./Llama-3.2-1B --vram 2GiB --parallel 8
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'";

/// Options of `serve`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// Who may ask what, and how many at once.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct NetworkArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Key that clients have to give
    #[arg(long, value_name = "KEY", env = "PIPO_WGPU_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Texts that are written together, each with a context of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = super::batch())]
    pub parallel: u32,
    /// Texts that may wait; further ones are told to come back later
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub queue: u32,
    /// Name of the model in answers [default: that of its file or folder]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub alias: Option<String>,
    /// Origin of web pages that may ask, besides those on this machine; * is any
    #[arg(long, value_name = "ORIGIN", hide_short_help = true)]
    pub allow_origin: Vec<String>,
    /// Seconds a client may take for the next piece of its request or answer; 0 is for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 60, hide_short_help = true)]
    pub client_timeout: u32,
    /// Seconds that answers get to finish after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 10, hide_short_help = true)]
    pub patience: u32,
}
