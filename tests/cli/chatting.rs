//! Chats: one message from the command line, a conversation from a pipe, one at a terminal.

use std::fs;

use serde_json::Value;

use super::Place;

/// Shows roles and contents; a start token so that the text equals what a plain prompt becomes.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}a:{% endif %}";

/// A place whose model has a chat template.
fn place() -> Place {
    let place = Place::new();
    place.write("model/chat_template.jinja", TEMPLATE);
    place.write(
        "model/tokenizer_config.json",
        r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}"#,
    );
    place
}

const GREEDY: &str = "--temperature 0 -n 6 --ignore-eos";

#[test]
fn a_message_goes_through_the_template() {
    let place = place();
    let run = |line: &str, prompt: &str| {
        let mut command = place.command(&format!("{line} {GREEDY}"));
        let outcome = super::Outcome::of(command.args(["-p", prompt]).output().unwrap());
        outcome.succeeded(line).stdout
    };
    assert_eq!(run("run model", "Hello"), run("run model --raw", "user: Hello\na:"));
    assert_eq!(
        run("run model --system Short", "Hello"),
        run("run model --no-chat-template", "system: Short\nuser: Hello\na:")
    );
    let piped = place.feed(&format!("run model {GREEDY}"), b"Hello\n").succeeded("piped").stdout;
    assert_eq!(piped, run("run model", "Hello"));
}

#[test]
fn a_conversation_comes_from_a_pipe() {
    let place = place();
    let input = "Hi\\\nthere\n\n/set temperature 0\n/set temperature nan\n/set max-tokens 4\n/regen\n\
                 /save talk.json\n/dance\n/clear\n/load talk.json\n/system Short\n\
                 More\n/save more.json\n/exit\nnever read\n";
    let line = "run model --chat -n 4 --ignore-eos --temperature 0 --context 200";
    let outcome = place.feed(line, input.as_bytes());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for said in ["/dance is no command", "2 messages from talk.json", "temperature 0,", "saved to more.json"]
    {
        assert!(outcome.stderr.contains(said), "{said}: {}", outcome.stderr);
    }
    // A setting that is refused does not stay.
    assert_eq!(outcome.stderr.matches("max-tokens 4").count(), 2, "{}", outcome.stderr);
    let read =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(place.path(name)).unwrap()).unwrap() };
    let (first, last) = (read("talk.json"), read("more.json"));
    assert_eq!(first["messages"][0]["content"], "Hi\nthere");
    let roles: Vec<_> =
        last["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(last["messages"][2], first["messages"][1]);
    // The same answer twice, then that to the longer conversation.
    let answer = first["messages"][1]["content"].as_str().unwrap();
    let second = last["messages"][4]["content"].as_str().unwrap();
    assert_eq!(outcome.stdout, format!("{answer}\n{answer}\n{second}\n"));
    // Only what is new of a conversation is read: the answer made again needs one token.
    assert!(outcome.stderr.contains("(1 tokens read in "), "{}", outcome.stderr);
}

#[test]
fn what_cannot_chat_is_refused() {
    let place = place();
    place.run("run --system x -p y").refused("no template", "--system could be a part of");
    place.run("run model --ids 1 --system x").refused("ids", "--ids are taken as they are");
    place.run("run model").refused("nothing to answer", "the prompt is empty");
    place.write("model/chat_template.jinja", "{{ raise_exception('Only poems') }}");
    place.run("run model -p x").refused("raised", "the chat template refuses these messages: Only poems");
    place.write("model/chat_template.jinja", "{% if %}");
    place.run("run model -p x").refused("syntax", "the chat template fails in line 1");
    place.run(&format!("run model -p x --raw {GREEDY}")).succeeded("raw");
    place.write("model/chat_template.jinja", [0xff, 0xfe]);
    place.run("run model -p x").refused("UTF-8", "chat_template.jinja: expected text in UTF-8");
}

/// Where there is no template, the model goes on with all that was said.
#[test]
fn a_model_without_a_template_goes_on() {
    let place = place();
    let line = "run --chat --temperature 0 -n 12";
    let outcome = place
        .feed(line, b"One day\n/save talk.json\nThe fox\n/system The dragon Zog was angry.\n/regen\n")
        .succeeded(line);
    assert!(outcome.stderr.contains("it goes on with what you write"), "{}", outcome.stderr);
    let talk: Value = serde_json::from_slice(&fs::read(place.path("talk.json")).unwrap()).unwrap();
    let first = talk["messages"][1]["content"].as_str().unwrap();
    let plain = |prompt: &str| {
        let mut command = place.command("run --temperature 0 -n 12");
        super::Outcome::of(command.args(["-p", prompt]).output().unwrap()).succeeded(prompt).stdout
    };
    assert_eq!(first, plain("One day").trim_end_matches('\n'));
    let more = format!("One day\n{first}\nThe fox");
    let (second, third) = (plain(&more), plain(&format!("The dragon Zog was angry.\n{more}")));
    assert_ne!(second, third, "what is said before counts");
    assert!(outcome.stdout.ends_with(&format!("{first}\n{second}\n{third}\n")), "{}", outcome.stdout);
}

/// Typed at a terminal: an answer, Ctrl-C in the middle of a long one, and the end.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_not_the_chat() {
    let place = place();
    let mut command = place.command("run model --ignore-eos --temperature 1 --seed 3 --context 20000");
    command.env("TERM", "dumb");
    // A long answer, so that there is time to stop it.
    place.edit_json("config.json", |config| config["max_position_embeddings"] = 20_000.into());
    let mut terminal = rexpect::session::spawn_command(inherit(command), Some(300_000)).unwrap();
    terminal.exp_string("Type a message, or /help").unwrap();
    terminal.send_line("/set max-tokens 3").unwrap();
    terminal.exp_string("max-tokens 3").unwrap();
    terminal.send_line("Hello").unwrap();
    terminal.exp_string("3 written at").unwrap();
    terminal.send_line("/set max-tokens 19000").unwrap();
    terminal.exp_string("max-tokens 19000").unwrap();
    terminal.send_line("Tell me all").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    terminal.send_control('c').unwrap();
    terminal.exp_string("(stopped)").unwrap();
    terminal.send_line("/set max-tokens 2").unwrap();
    terminal.exp_string("max-tokens 2").unwrap();
    terminal.send_line("/regen").unwrap();
    terminal.exp_string("2 written at").unwrap();
    terminal.send_line("/exit").unwrap();
    terminal.exp_eof().unwrap();
    let history = fs::read_to_string(place.path("cache/history")).unwrap();
    assert!(history.contains("Tell me all"), "{history}");
}

/// Nobody has to type anything for a request to terminate to be heard, and the terminal is left as it was.
#[cfg(unix)]
#[test]
fn a_request_to_terminate_is_heard_where_nothing_is_typed() {
    use std::time::{Duration, Instant};

    use rexpect::process::{Signal, WaitStatus};
    use rustix::termios::{LocalModes, tcgetattr};

    let place = place();
    let mut command = place.command("run model");
    command.env("TERM", "xterm");
    let mut terminal = rexpect::session::spawn_command(inherit(command), Some(300_000)).unwrap();
    let modes = |terminal: &rexpect::session::PtySession| {
        tcgetattr(terminal.process().get_file_handle().unwrap()).unwrap().local_modes
    };
    terminal.exp_string("Type a message, or /help").unwrap();
    let start = Instant::now();
    while modes(&terminal).contains(LocalModes::ICANON) {
        assert!(start.elapsed() < Duration::from_secs(60), "the line editor takes the terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.process_mut().signal(Signal::SIGTERM).unwrap();
    let ended = terminal.process().wait().unwrap();
    assert!(matches!(ended, WaitStatus::Exited(_, 143)), "{ended:?}");
    let left = modes(&terminal);
    assert!(left.contains(LocalModes::ICANON | LocalModes::ISIG), "as it was: {left:?}");
}

/// The same command with the streams that the terminal gives it.
#[cfg(unix)]
fn inherit(mut command: std::process::Command) -> std::process::Command {
    use std::process::Stdio;
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command
}

/// A cache as Hugging Face's own tools leave it serves without a network.
#[test]
fn a_cached_model_runs_by_its_name() {
    let place = place();
    let root = "hub/models--org--tiny";
    let commit = "c0ffee";
    let folder = place.path(root).join("snapshots").join(commit);
    fs::create_dir_all(place.path(root).join("refs")).unwrap();
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::rename(place.path("model"), &folder).unwrap();
    fs::write(place.path(root).join("refs/main"), commit).unwrap();
    let run = |line: &str| {
        let mut command = place.command(line);
        command.env("HF_HOME", place.folder.path()).env("HF_ENDPOINT", "http://127.0.0.1:1");
        super::Outcome::of(command.output().unwrap())
    };
    let by_path =
        place.run(&format!("run hub/models--org--tiny/snapshots/c0ffee -p Hi {GREEDY}")).succeeded("path");
    let line = "run org/tiny:main --offline";
    let outcome = run(&format!("{line} -p Hi {GREEDY}")).succeeded(line);
    assert_eq!(outcome.stdout, by_path.stdout, "{line}");
    assert!(outcome.stderr.contains("model  org/tiny"), "{}", outcome.stderr);
    // Nobody answers there: what is in the cache will do, and that is said.
    let outcome = run(&format!("run org/tiny -p Hi {GREEDY}"));
    assert_eq!((outcome.code, &outcome.stdout), (Some(0), &by_path.stdout), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("using what is in the cache"), "{}", outcome.stderr);
    run("run org/other --offline -p x").refused("absent", "not complete in the cache");
    run("run org/other -p x").refused("no network", "the hub cannot be reached");
    run("run org/tiny:v1 --revision v2 -p x").refused("two revisions", "give one of them");
    run("run org/tiny --revision ../../x -p x").refused("a path", "--revision `../../x`: expected a branch");
    run("plan org/tiny --offline").succeeded("plan");
}

#[test]
fn shells_and_man_learn_the_options() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.output(&format!("completions {shell}"));
        assert!(script.contains("perplexity") && script.contains("temperature"), "{shell}");
    }
    assert!(place.output("man").contains(".TH pipo-wgpu 1"));
    place.run("man pages").succeeded("man");
    let names = place.names("pages");
    assert!(
        names.contains(&"pipo-wgpu.1".to_owned()) && names.contains(&"pipo-wgpu-run.1".to_owned()),
        "{names:?}"
    );
}

/// A script hears of it by the exit code, as it does where an engine fails.
#[test]
fn a_last_message_without_an_answer_is_a_failure() {
    let place = place();
    let line = "run model --chat --context 64 --temperature 0 -n 2";
    let long = "Hello, world! ".repeat(20);
    let outcome = place.feed(line, format!("Hi\n{long}\n").as_bytes());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(
        outcome.stderr.lines().last().unwrap().contains("all that this run can remember"),
        "{}",
        outcome.stderr
    );
    let outcome = place.feed(line, format!("{long}\nHi\n").as_bytes());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}
