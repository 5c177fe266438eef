//! `bench`: tables that programs can read, with numbers that agree with each other.

use serde_json::Value;

use super::{Place, vram};

/// Small enough for software, with some units travelling.
const LINE: &str = "bench -p 24 -n 6 -r 2 --depth 2 --route staged";

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {row}"))
}

#[test]
fn json_has_a_row_for_every_batch_and_test() {
    let place = Place::new();
    let line = format!("{LINE} -b 1,3 --json {}", vram(6));
    let outcome = place.run(&line).succeeded(&line);
    let rows: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let tests = rows.iter().map(|row| (row["batch"].as_u64().unwrap(), row["test"].as_str().unwrap()));
    assert_eq!(tests.collect::<Vec<_>>(), [(1, "pp24"), (1, "tg6"), (3, "pp24"), (3, "tg6")]);
    let plans: Vec<_> = outcome.stderr.split("\nplan ").skip(1).collect();
    assert_eq!(plans.len(), 2, "{}", outcome.stderr);
    for (row, plan) in rows.iter().zip(plans.iter().flat_map(|plan| [plan; 2])) {
        let (rate, seconds) = (number(row, "tokens_per_second"), number(row, "pass_seconds"));
        assert!(rate > 0.0 && number(row, "tokens_per_second_sd") >= 0.0 && seconds > 0.0, "{row}");
        let runs: Vec<_> =
            row["repetitions"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
        assert_eq!(runs.len(), 2);
        assert!((runs.iter().sum::<f64>() / 2.0 / rate - 1.0).abs() < 1e-9, "{row}");
        // What travels is what the plan says.
        let streamed = number(row, "streamed_bytes_per_pass");
        let shown = pipo_wgpu::size::format(streamed as u64);
        let line = plan.lines().find(|line| line.trim_start().starts_with("streamed ")).unwrap();
        assert!(line.contains(&shown), "{shown}: {line}");
        let link = number(row, "link_bytes_per_second");
        assert!((link * seconds / streamed - 1.0).abs() < 1e-6, "{row}");
        let share = number(row, "link_share");
        assert!((link / number(row, "raw_link_bytes_per_second") / share - 1.0).abs() < 1e-6, "{row}");
        let (busy, efficiency) = (number(row, "gpu_busy"), number(row, "pipeline_efficiency"));
        assert!(busy > 0.0 && busy < 1.01, "{row}");
        // How near the link came to its probe is physics of one machine, and of its other work:
        // what must hold is that the figures are those of each other.
        assert!((efficiency - busy.max(share)).abs() < 1e-9, "{row}");
        let batch = number(row, "batch");
        let decode = row["test"] == "tg6";
        assert_eq!(
            number(row, "passes"),
            if decode { 6.0 } else { (24.0 * batch / number(row, "chunk")).ceil() }
        );
        assert!(number(row, "predicted_tokens_per_second") > 0.0, "{row}");
        let units = ["units_vram", "units_host", "units_disk"].map(|key| number(row, key));
        assert_eq!(units.iter().sum::<f64>(), 18.0, "{row}");
        assert!(number(row, "vram_peak_bytes") <= number(row, "vram_budget_bytes"), "{row}");
        assert_eq!((&row["decode_route"], number(row, "depth")), (&Value::from("staged"), 2.0));
    }
    // A decode pass of three sequences decides three tokens.
    let tokens = |row: &Value| number(row, "tokens_per_second") * number(row, "pass_seconds");
    assert!((0.5..2.0).contains(&tokens(&rows[1])), "{}", rows[1]);
    assert!((1.5..6.0).contains(&tokens(&rows[3])), "{}", rows[3]);
}

#[test]
fn tables_are_for_people_and_for_spreadsheets() {
    let place = Place::new();
    let markdown = place.output("bench model -p 8 -n 2 -r 1");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let lines: Vec<Vec<String>> = markdown.lines().map(cells).collect();
    assert_eq!(lines.len(), 4, "{markdown}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{markdown}");
    let column = |name: &str| lines[0].iter().position(|cell| cell == name).unwrap();
    assert_eq!([&lines[2], &lines[3]].map(|line| line[column("test")].as_str()), ["pp8", "tg2"]);
    // All is resident: nothing travels, and nothing is compared with the link.
    assert_eq!(lines[3][column("of raw")], "n/a");
    assert_eq!((lines[3][column("homes")].as_str(), lines[3][column("route")].as_str()), ("7/0/0", "none"));
    let rate: f64 = lines[3][column("t/s")].split(' ').next().unwrap().parse().unwrap();
    assert!(rate > 0.0);

    let csv = place.output("bench model -p 0 -n 2 -r 1 -o csv");
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines[0].split(',').any(|name| name == "tokens_per_second") && lines[1].contains("tg2"), "{csv}");
}

#[test]
fn results_are_compared_and_drawn() {
    let place = Place::new();
    let line = "bench model -p 8 -n 2 -r 2 -d 0,24 --json";
    let json = place.output(line);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp8", "tg2", "pp8 @ d24", "tg2 @ d24"]);
    for row in &rows {
        // As scripts for llama-bench find them.
        assert_eq!(row["avg_ts"], row["tokens_per_second"]);
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2);
        assert_eq!(number(row, "n_prompt") + number(row, "n_gen"), if row["n_gen"] == 0 { 8.0 } else { 2.0 });
        assert!(number(row, "model_n_params") > 1000.0 && row["backends"] == "Vulkan", "{row}");
    }
    // With the same work, reading a prompt takes the passes that it takes anywhere.
    assert_eq!((rows[0]["passes"].clone(), rows[1]["passes"].clone()), (1.into(), 2.into()));
    assert_eq!((rows[2]["passes"].clone(), rows[3]["passes"].clone()), (1.into(), 2.into()));
    place.write("a.json", &json);
    let table = place.output("bench --compare a.json a.json");
    assert_eq!(table.matches("| 1.000 | no difference |").count(), 4, "{table}");
    assert_eq!(place.output("bench --plot p.svg a.json"), "");
    let picture = std::fs::read_to_string(place.path("p.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.matches("<circle").count() == 4, "{picture}");
    place.write("b.json", "[{}]");
    for (line, words) in [
        ("bench --compare a.json b.json", "bench -o json"),
        ("bench --compare a.json absent.json", "absent.json"),
        ("bench --plot q.svg b.json", "rows with model"),
    ] {
        place.run(line).refused(line, words);
    }
}
