//! Command lines that must be understood, and those that must not.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> std::result::Result<Verb, clap::Error> {
    Args::try_parse_from(std::iter::once("pipo-wgpu").chain(line.split_whitespace())).map(|args| args.verb)
}

fn run(line: &str) -> RunArgs {
    match parse(line).unwrap() {
        Verb::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn run_takes_everything() {
    let args = run("run model -p hi --vram 6GiB --adapter 1 --weights w8 --exact --depth 3 --trace t.json \
                    -n 7 --temperature 0.5 --top-k 40 --top-p 0.9 --min-p 0.05 --repetition-penalty 1.1 --seed 9 \
                    --stop a --stop b --print-ids --ignore-eos --context 512 --no-verify --cache q8");
    assert_eq!(args.model.model, Some("model".into()));
    assert_eq!(args.model.source.weights, Some(WeightKind::W8));
    assert!(args.model.no_verify && args.device.exact && args.text.print_ids && args.text.ignore_eos);
    assert_eq!((args.budget.vram, args.budget.cache), (Some(6 << 30), Some(CacheKind::Q8)));
    assert_eq!((args.budget.depth, args.budget.context), (Some(3), Some(512)));
    assert_eq!((args.text.max_tokens, args.text.stop), (Some(7), vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((args.device.adapter.as_deref(), args.trace), (Some("1"), Some("t.json".into())));
    let options = args.sampling.resolve(&GenerationConfig::default()).unwrap();
    let expected = SamplerOptions {
        temperature: 0.5,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        repetition_penalty: 1.1,
        seed: 9,
    };
    assert_eq!(options, expected);
}

#[test]
fn run_needs_nothing() {
    let args = run("run");
    assert_eq!((args.model.model, args.budget.vram), (None, None));
    assert_eq!((args.prompt.prompt.len(), args.text.batch), (0, 1));
    let args = run("run -p a -p b --batch 3");
    assert_eq!((args.prompt.prompt, args.text.batch), (vec!["a".to_owned(), "b".to_owned()], 3));
    assert_eq!(run("run --ids 3,17,42").prompt.ids, [3, 17, 42]);
    assert_eq!(run("run --dummy llama-2-7b").model.source.dummy.as_deref(), Some("llama-2-7b"));
}

#[test]
fn leading_positionals_may_be_left_out() {
    for (line, src, dst) in [("pack a b", Some("a"), "b"), ("pack --dummy llama-2-7b b", None, "b")] {
        let Verb::Pack(args) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!((args.src, args.dst), (src.map(PathBuf::from), PathBuf::from(dst)), "{line}");
    }
    for (line, model, file) in [("perplexity m f", Some("m"), "f"), ("perplexity f --stride 8", None, "f")] {
        let Verb::Perplexity(args) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!((args.model.model, args.file), (model.map(PathBuf::from), PathBuf::from(file)), "{line}");
    }
    let Verb::Logits(args) = parse("logits m --ids 1,2 --out o.safetensors").unwrap() else { panic!() };
    assert_eq!((args.ids, args.out), (vec![1, 2], PathBuf::from("o.safetensors")));
    assert!(matches!(parse("plan m --vram 1g").unwrap(), Verb::Plan(_)));
    assert!(matches!(parse("devices --json").unwrap(), Verb::Devices(DevicesArgs { json: true })));
}

#[test]
fn wrong_usage_is_named() {
    for (line, complaint) in [
        ("", "Usage"),
        ("walk", "walk"),
        ("run --vram 6Gx", "expected a size such as 6GiB"),
        ("run --weights w5", "w4, w8, f16, f32"),
        ("run --depth 0", "0 is not in 1..=64"),
        ("run --context 0", "--context"),
        ("run --ids 1,x", "--ids"),
        ("run --ids 1 -p a", "cannot be used with"),
        ("run -p a --prompt-file b", "cannot be used with"),
        ("run model --dummy llama-2-7b", "cannot be used with"),
        ("run --temperature hot", "--temperature"),
        ("pack a", "required"),
        ("pack a b --dummy llama-2-7b", "cannot be used with"),
        ("logits m --out o", "--ids"),
        ("logits m --ids 1", "--out"),
        ("perplexity", "FILE"),
    ] {
        let problem = parse(line).unwrap_err();
        assert_eq!(problem.exit_code(), 2, "{line}");
        assert!(problem.to_string().contains(complaint), "{line}: {problem}");
    }
}

#[test]
fn sampling_follows_the_model_unless_told() {
    let model =
        |do_sample| GenerationConfig { do_sample, temperature: Some(0.6), ..GenerationConfig::default() };
    for (line, do_sample, temperature) in [
        ("run", Some(true), 0.6),
        ("run", Some(false), 0.0),
        ("run", None, 0.0),
        ("run --top-p 0.9", None, 0.6),
        ("run --temperature 1.5", None, 1.5),
        ("run --temperature 0", Some(true), 0.0),
        ("run --seed 3", None, 0.0),
    ] {
        let options = run(line).sampling.resolve(&model(do_sample)).unwrap();
        assert_eq!(options.temperature, temperature, "{line} {do_sample:?}");
    }
    assert!(run("run --top-p 2").sampling.resolve(&model(None)).unwrap_err().to_string().contains("top-p"));
}

#[test]
fn help_fits_a_screen() {
    let mut command = Args::command().term_width(110);
    command.build();
    let mut verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.retain(|verb| verb != "help");
    assert_eq!(verbs.len(), 11);
    for verb in verbs {
        let help = command.find_subcommand_mut(&verb).unwrap().render_help().to_string();
        let lines = help.lines().count();
        assert!(lines <= 52, "{verb}: {lines} lines\n{help}");
    }
}
