//! Names on the hub, which files of a repository are wanted, and what the environment says.

use std::fs;

use super::*;

#[test]
fn names_and_files_are_told_apart() {
    for (text, repo, revision, quant) in [
        ("org/name", "org/name", None, None),
        ("org/name:main", "org/name", Some("main"), None),
        ("org/name:refs/pr/1", "org/name", Some("refs/pr/1"), None),
        ("org/Name-1.5_x:Q4_K_M", "org/Name-1.5_x", None, Some("Q4_K_M")),
        ("org/name:iq4_nl", "org/name", None, Some("iq4_nl")),
        ("org/name:UD-Q4_K_XL", "org/name", None, Some("UD-Q4_K_XL")),
        ("hf.co/org/name:bf16", "org/name", None, Some("bf16")),
        ("https://huggingface.co/org/name", "org/name", None, None),
    ] {
        let found = HubName::parse(text).unwrap();
        assert_eq!(
            (found.repo.as_str(), found.revision.as_deref(), found.quant.as_deref()),
            (repo, revision, quant)
        );
    }
    for text in [
        "",
        "name",
        "./folder",
        "/a/b",
        "a/b/c",
        "../x/y",
        "org/",
        "/name",
        "org/na me",
        "org/name:",
        "a/..",
        "C:\\x/y",
    ] {
        assert_eq!(HubName::parse(text), None, "{text}");
    }
}

#[test]
fn files_are_chosen_by_what_a_run_needs() {
    let files = |names: &[&str], quant: Option<&str>| select::select("r", names, quant);
    let sharded = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "consolidated.safetensors",
        "original/x.safetensors",
        "vocab.json",
        "merges.txt",
    ];
    assert_eq!(
        files(&sharded, None).unwrap().files,
        [
            "config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "vocab.json"
        ]
    );
    assert_eq!(files(&["config.json", "other.safetensors"], None).unwrap().files.len(), 2);
    assert_eq!(files(&["x.IQ3_S.gguf"], None).unwrap().gguf.unwrap(), "x.IQ3_S.gguf");
    for (names, quant, complaint) in [
        (&["config.json", "pytorch_model.bin"][..], None, "pickles"),
        (&["config.json"], None, "found no weights"),
        (&["config.json", "a.safetensors", "b.safetensors"], None, "several *.safetensors"),
        (&["model.safetensors"], None, "expected config.json"),
        (&["a-Q2_K.gguf", "a-Q3_K.gguf"], None, "several GGUF files"),
        (&["config.json", "model.safetensors"], Some("Q4_0"), "found no GGUF file at all"),
        (&["a-Q4_K_M.gguf"], Some("Q4_K"), "expected a GGUF file of Q4_K, found a-Q4_K_M.gguf"),
    ] {
        let problem = files(names, quant).unwrap_err().to_string();
        assert!(problem.contains(complaint), "{problem}");
    }
}

#[test]
fn the_environment_is_that_of_other_tools() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap().to_owned();
    fs::write(home.path().join("token"), " from file \n").unwrap();
    let hub = |set: &[(&str, &str)]| {
        let variable =
            |name: &str| set.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned());
        Hub::from_variables(variable).unwrap()
    };
    let plain = hub(&[("HF_HOME", &path)]);
    assert_eq!(
        (plain.cache, plain.token.as_deref(), plain.offline),
        (home.path().join("hub"), Some("from file"), false)
    );
    assert_eq!(plain.endpoint, ENDPOINT);
    let all = hub(&[
        ("HF_HOME", &path),
        ("HF_HUB_CACHE", "/c"),
        ("HF_TOKEN", "mine"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
    ]);
    assert_eq!((all.cache, all.token.as_deref()), (PathBuf::from("/c"), Some("mine")));
    assert_eq!((all.offline, all.endpoint.as_str(), all.timeout_seconds), (true, "http://mirror", 7));
    let quiet = hub(&[("HF_HOME", &path), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
    assert_eq!(quiet.token, None);
    for (name, value, complaint) in [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "18446744073709551615", "from 1 to 604800, found `18446744073709551615`"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0", "found `0`"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "nan", "found `nan`"),
        ("HF_TOKEN", "two\nlines", "the hub's token"),
        ("HF_TOKEN", "s\u{fc}\u{df}", "the hub's token"),
    ] {
        let variable = |asked: &str| match asked {
            "HF_HOME" => Some(path.clone()),
            asked => (asked == name).then(|| value.to_owned()),
        };
        let problem = Hub::from_variables(variable).unwrap_err().to_string();
        assert!(problem.contains(complaint), "{problem}");
    }
    // What has no end is no token.
    #[cfg(unix)]
    assert_eq!(hub(&[("HF_HOME", &path), ("HF_TOKEN_PATH", "/dev/zero")]).token, None);
    assert_eq!(hub(&[("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
}
