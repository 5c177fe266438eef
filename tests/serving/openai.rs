//! The official `openai` client for Python and LangChain against the server, where they are installed.

use std::process::Command;

use super::client::Server;

/// Names a Python that has the clients.
const PYTHON_VARIABLE: &str = "PIPO_WGPU_PYTHON";

#[test]
fn the_official_client_works() {
    run("openai", "openai", "openai_client.py");
}

#[test]
fn langchain_works() {
    run("langchain_openai", "langchain-openai", "langchain_client.py");
}

/// Runs a script against a server, where a Python has what it imports.
fn run(module: &str, package: &str, script: &str) {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let has_client = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !has_client.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {python} has no {module}; pip install {package}, or set {PYTHON_VARIABLE}");
        return;
    }
    let server = Server::start("--parallel 4 --context 256 --api-key sesame");
    let script = format!("{}/tests/serving/{script}", env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(python).arg(script).arg(format!("http://{}/v1", server.address)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
