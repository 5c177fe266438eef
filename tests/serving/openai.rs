//! The official `openai` client for Python against the server, where it is installed.

use std::process::Command;

use super::client::Server;

/// Names a Python that has the client.
const PYTHON_VARIABLE: &str = "PIPO_WGPU_PYTHON";

#[test]
fn the_official_client_works() {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let has_client = Command::new(&python).args(["-c", "import openai"]).output();
    if !has_client.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {python} has no openai; pip install openai, or set {PYTHON_VARIABLE}");
        return;
    }
    let server = Server::start("--parallel 4 --context 256 --api-key sesame");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serving/openai_client.py");
    let output =
        Command::new(python).arg(script).arg(format!("http://{}/v1", server.address)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
