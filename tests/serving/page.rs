//! The web page in headless Chromium, where that is installed: type, stream, stop, reload, screenshots.

use std::process::Command;

use super::client::Server;

/// Names a Python; only its standard library is needed.
const PYTHON_VARIABLE: &str = "PIPO_WGPU_PYTHON";
/// Where screenshots are kept, if anywhere.
const SHOTS_VARIABLE: &str = "PIPO_WGPU_SCREENSHOTS";

/// A browser that can be told what to do.
fn browser() -> Option<&'static str> {
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    ["chromium", "chromium-browser", "google-chrome", "chrome"].into_iter().find(works)
}

#[test]
fn the_page_chats_in_a_browser() {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let has_python = Command::new(&python).arg("--version").output().is_ok();
    let Some(browser) = browser().filter(|_| has_python) else {
        eprintln!("SKIPPED: there is no Chromium, or no {python}; install both to test the page");
        return;
    };
    let server = Server::start("--parallel 2 --context 400");
    let folder = tempfile::tempdir().unwrap();
    let shots = std::env::var_os(SHOTS_VARIABLE).map_or_else(|| folder.path().to_owned(), Into::into);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serving/page.py");
    let mut command = Command::new(python);
    command.arg(script).arg(browser).arg(format!("http://{}/", server.address)).arg(&shots);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["desktop-light", "desktop-dark", "phone-light", "phone-dark"] {
        let bytes = std::fs::metadata(shots.join(format!("{name}.png"))).unwrap().len();
        assert!(bytes > 5000, "{name}: {bytes} bytes are hardly a picture");
    }
}
