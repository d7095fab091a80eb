//! What the command prints, what it writes, and how it refuses bad input.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Shade, str_of, texts};

/// Where the CIFAR-10 files of a test go: `records` of a label and a grey picture each.
fn cifar10(s: &Shade, folder: &str, records: usize, label: impl Fn(usize) -> u8) -> PathBuf {
    for file in ["data_batch_1.bin", "test_batch.bin"] {
        let mut bytes = Vec::new();
        for i in 0..records {
            bytes.push(label(i));
            bytes.extend((0..3072).map(|p| ((p * 7 + i * 31) % 251) as u8));
        }
        s.write(&format!("{folder}/{file}"), bytes);
    }
    s.path(folder)
}

#[test]
fn training_shows_and_writes_what_happens() {
    let s = Shade::new();
    let text = s.train("run", &["--epochs", "2", "--record-every", "2"]);
    for word in [
        "training cnn on digits",
        "device: ",
        "parameters",
        "kernels compiled",
        "first step",
        "epoch 2/2",
        "test accuracy",
        "done in",
    ] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    let metrics = s.metrics("run");
    let events: Vec<&str> = metrics.iter().filter_map(|m| m["event"].as_str()).collect();
    // Five steps an epoch, a record after every second.
    assert_eq!(events, ["step", "step", "epoch", "step", "step", "step", "epoch", "end"]);
    assert_eq!(metrics[0]["step"], 2);
    for m in metrics.iter().filter(|m| m["event"] == "epoch") {
        assert!(m["train_loss"].as_f64().is_some_and(f64::is_finite));
        assert!((0.0..=1.0).contains(&m["test"]["accuracy"].as_f64().expect("accuracy")));
    }
    let config = std::fs::read_to_string(s.path("run/config.resolved.toml")).expect("config.resolved.toml");
    assert!(config.contains("model = \"cnn\"") && config.contains("epochs = 2"), "{config}");
}

#[test]
fn the_same_seed_gives_the_same_run_also_from_its_configuration() {
    let s = Shade::new();
    let options = ["--epochs", "2", "--record-every", "1", "--augment", "crop,mixup", "--seed", "7"];
    s.train("a", &options);
    s.train("b", &options);
    assert_eq!(s.metrics("a"), s.metrics("b"));
    s.good(&["train", "--config", "a/config.resolved.toml", "--out", "c"]);
    assert_eq!(s.metrics("a"), s.metrics("c"));
    s.train("d", &["--epochs", "2", "--record-every", "1", "--augment", "crop,mixup", "--seed", "8"]);
    assert_ne!(s.metrics("a"), s.metrics("d"));
}

#[test]
fn mixed_precision_trains_and_is_off_with_a_note_where_there_is_no_f16() {
    let s = Shade::new();
    let train = |out: &str, precision: &str, disable: &str| {
        let args = ["train", "--train-limit", "100", "--test-limit", "50", "--batch", "20", "--epochs", "2"];
        let args = [&args[..], &["--record-every", "1", "--precision", precision, "--out", out]].concat();
        let run = s.run_env(&args, &[("SHADEGRAD_DISABLE", disable)]);
        let (stdout, stderr) = texts(&run);
        assert!(run.status.success(), "{stdout}\n{stderr}");
        stdout
    };
    let plain = train("f32", "f32", "f16");
    assert!(!plain.contains("mixed precision"), "{plain}");
    let without = train("without", "mixed", "f16");
    assert!(without.contains("has no f16: mixed precision is off, the run is in f32"), "{without}");
    assert_eq!(s.metrics("without"), s.metrics("f32"));
    let with = train("mixed", "mixed", "");
    if first_device(&s)["f16"] == true {
        assert!(with.contains("mixed precision: ") && with.contains("of 10 steps left out by overflow"), "{with}");
        let (mixed, plain) = (s.metrics("mixed"), s.metrics("f32"));
        let first = |m: &[Value]| m[0]["loss"].as_f64().expect("a loss");
        assert!(first(&mixed) != first(&plain) && (first(&mixed) - first(&plain)).abs() < 0.01);
    }
    assert!(s.read("mixed/config.resolved.toml").contains("precision = \"mixed\""));
    s.bad(&["train", "--precision", "half"], 2, &["f32", "mixed"]);
}

#[test]
fn every_optimiser_and_schedule_trains() {
    let s = Shade::new();
    for (i, (optimizer, schedule)) in
        [("sgd", "step"), ("adam", "constant"), ("rmsprop", "one-cycle"), ("lamb", "cosine"), ("lars", "cosine")]
            .into_iter()
            .enumerate()
    {
        let out = i.to_string();
        let options =
            ["--epochs", "1", "--lr", "0.001", "--model", "mlp", "--optimizer", optimizer, "--schedule", schedule];
        s.train(&out, &options);
    }
    let options = [
        "--epochs",
        "1",
        "--label-smoothing",
        "0.1",
        "--clip-norm",
        "1",
        "--warmup",
        "0.5",
        "--augment",
        "flip,cutout,cutmix",
    ];
    s.train("all", &options);
}

#[test]
fn a_folder_in_the_usual_layout_is_read() {
    let s = Shade::new();
    let folder = cifar10(&s, "cifar", 20, |i| (i % 10) as u8);
    let text = s.good(&["data", "check", str_of(&folder)]);
    assert!(text.contains("CIFAR-10") && text.contains("train: 20 pictures of 32x32x3"), "{text}");
    let args = ["train", "--data", str_of(&folder), "--model", "mlp", "--epochs", "1", "--batch", "10", "--out", "run"];
    let text = s.good(&args);
    assert!(text.contains("20 pictures to train on"), "{text}");
    let config = std::fs::read_to_string(s.path("run/config.resolved.toml")).expect("config.resolved.toml");
    assert!(config.contains("augment = [\"crop\", \"flip\"]"), "{config}");
}

#[test]
fn runs_without_a_folder_are_numbered() {
    let s = Shade::new();
    for n in 1..3 {
        let text = s.good(&["train", "--model", "mlp", "--train-limit", "10", "--test-limit", "10", "--epochs", "1"]);
        let name = format!("mlp-digits-{n}");
        assert!(text.contains(&name) && s.path("runs").join(name).join("metrics.jsonl").exists(), "{text}");
    }
}

#[test]
fn damaged_data_is_refused() {
    let s = Shade::new();
    let out = s.path("out");
    let refused = |folder: &Path, words: &[&str]| {
        s.bad(&["train", "--data", str_of(folder), "--out", str_of(&out)], 1, words);
        s.bad(&["data", "check", str_of(folder)], 1, words);
        // Nothing is left behind that a second attempt would stumble over.
        assert!(!out.join("metrics.jsonl").exists());
    };
    // A file cut off in the middle of a record.
    let folder = cifar10(&s, "truncated", 4, |_| 1);
    let file = folder.join("data_batch_1.bin");
    let whole = std::fs::read(&file).expect("the file");
    std::fs::write(&file, &whole[..whole.len() - 100]).expect("write");
    refused(&folder, &["data_batch_1.bin", "again"]);
    // A label that no class has.
    let folder = cifar10(&s, "mislabelled", 4, |i| if i == 2 { 77 } else { 1 });
    refused(&folder, &["77", "record 2"]);
    // Pictures and labels exchanged.
    let images: Vec<u8> = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2][..], &[0; 4]].concat();
    let labels: Vec<u8> = [&[0, 0, 8, 1, 0, 0, 0, 1][..], &[0]].concat();
    for (name, content) in [
        ("train-images-idx3-ubyte", &labels),
        ("train-labels-idx1-ubyte", &images),
        ("t10k-images-idx3-ubyte", &images),
        ("t10k-labels-idx1-ubyte", &labels),
    ] {
        s.write(&format!("exchanged/{name}"), content);
    }
    refused(&s.path("exchanged"), &["exchanged", "check their names"]);
    // A picture that is none.
    for class in ["cat", "dog"] {
        for n in 1..3 {
            s.write(&format!("pictures/{class}/{n}.png"), "not a picture");
        }
    }
    refused(&s.path("pictures"), &[".png"]);
    // An empty folder.
    std::fs::create_dir(s.path("empty")).expect("make a folder");
    refused(&s.path("empty"), &["no data set found", "give the folder"]);
}

#[test]
fn wrong_words_get_the_right_ones() {
    let s = Shade::new();
    s.bad(&["train", "--model", "resnt20"], 2, &["no model is called `resnt20`", "did you mean `resnet20`", "vgg16"]);
    s.bad(&["profile", "vit_mikro"], 2, &["did you mean `vit_micro`"]);
    s.bad(&["train", "--epoch", "3"], 2, &["--epoch", "--epochs"]);
    s.bad(&["trian"], 2, &["trian", "train"]);
    s.bad(&["train", "--epochs", "many"], 2, &["many", "--epochs"]);
    s.bad(&["train", "--optimizer", "adamx"], 2, &["adamx", "adamw"]);
    s.bad(&["train", "--data", "nowhere"], 2, &["nowhere", "no such folder", "shadegrad data"]);
    s.bad(&["train", "--batch", "0"], 2, &["--batch 0", "at least 1"]);
    s.bad(&["train", "--lr", "-1"], 2, &["--lr -1", "positive"]);
    s.bad(&["train", "--train-limit", "5"], 2, &["--train-limit 5", "10 classes"]);
    let config = s.write("c.toml", "epoch = 3\n");
    let words = ["c.toml", "unknown key `epoch`", "did you mean `epochs`"];
    s.bad(&["train", "--config", str_of(&config)], 2, &words);
    s.bad(&["train", "--config", "none.toml"], 2, &["none.toml", "--config"]);
    assert!(!s.path("runs").exists(), "a refused run leaves a folder behind");
}

#[test]
fn output_that_cannot_be_written_is_found_before_training() {
    let s = Shade::new();
    s.write("file", "a regular file");
    let text = s.bad(&["train", "--out", "file/run"], 1, &["file/run", "cannot be written", "--out"]);
    assert!(!text.contains("step"), "{text}");
    if cfg!(target_os = "linux") {
        // Not even root may make a folder there.
        s.bad(&["train", "--out", "/proc/run"], 1, &["/proc/run", "cannot be written", "--out"]);
    }
    s.train("run", &["--model", "mlp", "--epochs", "1"]);
    s.bad(&["train", "--out", "run"], 1, &["run", "another run", "--out"]);
}

#[test]
fn a_missing_driver_is_explained() {
    let s = Shade::new();
    let env = [("VK_DRIVER_FILES", "/nonexistent"), ("VK_ICD_FILENAMES", "/nonexistent")];
    let remedy = if cfg!(target_os = "linux") { "mesa-vulkan-drivers" } else { "" };
    if cfg!(target_os = "linux") {
        s.bad_env(&["train"], &env, 1, &["no GPU driver found", remedy]);
        s.bad_env(&["devices"], &env, 1, &[remedy]);
        let out = s.run_env(&["doctor"], &env);
        let (stdout, _) = texts(&out);
        assert_eq!(out.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains("unset VK_DRIVER_FILES") && stdout.contains(remedy), "{stdout}");
        assert!(!s.path("runs").exists(), "a refused run leaves a folder behind");
    }
}

#[test]
fn a_wrong_device_is_answered_with_the_right_ones() {
    let s = Shade::new();
    let name = first_device(&s)["name"].as_str().expect("a name").to_string();
    s.bad(&["train", "--adapter", "voodoo"], 1, &["no adapter matches \"voodoo\"", &name]);
    s.bad_env(&["train"], &[("SHADEGRAD_ADAPTER", "99")], 1, &["no adapter matches \"99\"", &name]);
    s.bad_env(&["train"], &[("SHADEGRAD_DISABLE", "f61")], 1, &["f61", "subgroups"]);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_says_where() {
    let s = Shade::new();
    let args = ["train", "--lr", "1e30", "--train-limit", "100", "--batch", "20", "--out", "run"];
    s.bad(&args, 3, &["the loss of step", "lower learning rate"]);
    let last = s.metrics("run").pop().expect("a line");
    assert_eq!(last["event"], "error");
    assert!(last["error"].as_str().is_some_and(|e| e.contains("the loss of step")), "{last}");
    let page = s.read("run/report.html");
    assert!(page.contains("Ended by an error") && page.contains("the loss of step"), "{page}");
}

fn first_device(s: &Shade) -> Value {
    let all: Value = serde_json::from_str(&s.good(&["devices", "--json"])).expect("JSON");
    all[0].clone()
}

#[test]
fn devices_doctor_models_and_data_tell_what_there_is() {
    let s = Shade::new();
    let device = first_device(&s);
    assert!(device["backend"].is_string() && device["max_binding_bytes"].as_u64() > Some(1 << 26), "{device}");
    let text = s.good(&["doctor"]);
    assert!(text.contains("agree with the processor") && text.contains("everything that training needs"), "{text}");
    let text = s.good(&["models"]);
    assert!(text.contains("resnet20") && text.contains("269,722"), "{text}");
    let models: Value = serde_json::from_str(&s.good(&["models", "--json"])).expect("JSON");
    assert!(models.as_array().is_some_and(|m| m.len() > 15));
    let text = s.good(&["data"]);
    assert!(text.contains("data_batch_1.bin") && text.contains("train-images-idx3-ubyte"), "{text}");
}

#[test]
fn bench_and_profile_measure() {
    let s = Shade::new();
    let rows: Value = serde_json::from_str(&s.good(&["bench", "--quick", "--roofline", "--json"])).expect("JSON");
    let names: Vec<&str> = rows.as_array().expect("an array").iter().filter_map(|r| r["name"].as_str()).collect();
    let expected =
        "matmul_nn_512 matmul_nt_512 matmul_tn_512 matmul_tt_512 matvec_1024 conv3x3_fwd conv3x3_dgrad conv3x3_wgrad";
    assert_eq!(names.join(" "), expected);
    for row in rows.as_array().expect("an array") {
        assert!(
            ["gflop_per_cpu_s", "gb_per_s", "share_of_roofline"].iter().all(|k| row[k].as_f64() > Some(0.0)),
            "{row}"
        );
        // One row of weights is read for each product of a vector; a convolution uses what it reads again and again.
        let bound = if row["name"] == "matvec_1024" { "memory" } else { "arithmetic" };
        assert_eq!(row["bound"], bound, "{row}");
    }
    if first_device(&s)["timestamps"] == true {
        let file = s.path("trace.json");
        let trace = ["--trace", file.to_str().expect("a path")];
        let text = s.good(&[&["profile", "mlp", "--size", "8", "--batch", "4", "--steps", "2"][..], &trace].concat());
        assert!(text.contains("gemm") && text.contains("a step:"), "{text}");
        let trace: Value = serde_json::from_str(&s.read("trace.json")).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events");
        let of = |row: u64| {
            let kernels = |e: &&Value| e["ph"] == "X" && e["tid"] == row && e["name"] != "submit and wait";
            events.iter().filter(kernels).map(|e| e["name"].as_str().expect("a name")).collect::<Vec<_>>()
        };
        // What the host recorded is what the device ran, in this order.
        assert!(of(1).len() > 20 && of(1) == of(2), "{:?} {:?}", of(1), of(2));
        assert!(
            events.iter().all(|e| e["ph"] == "M" || (e["ts"].as_f64() >= Some(0.0) && e["dur"].as_f64() >= Some(0.0)))
        );
        let env = [("SHADEGRAD_DISABLE", "timestamps")];
        s.bad_env(&["profile", "mlp", "--size", "8"], &env, 1, &["timestamp", "--adapter"]);
    }
}

/// What a page would need from elsewhere: nothing. The name of the SVG format is no address that is asked.
fn assert_self_contained(page: &str) {
    assert_eq!(page.matches("://").count(), page.matches("\"http://www.w3.org/2000/svg\"").count());
    assert_eq!(page.matches("src=").count(), page.matches("src=\"data:image/png;base64,").count());
    for word in ["<script", "<link", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'") && page.trim_end().ends_with("</html>"));
}

#[test]
fn every_run_leaves_a_report_that_needs_nothing_else() {
    let s = Shade::new();
    let text = s.train("run", &["--epochs", "2", "--record-every", "2", "--seed", "5"]);
    assert!(text.contains("report.html"), "{text}");
    let page = s.read("run/report.html");
    assert_self_contained(&page);
    for word in [
        "Finished: 2 epochs",
        "test accuracy",
        "Loss</text>",
        "Learning rate</text>",
        "Confusion after epoch 2",
        "Calibration after epoch 2",
        "Filters of the first layer",
        "Worst mistakes",
        "Samples",
        "record-every = 2",
        "adapter.name",
    ] {
        assert!(page.contains(word), "no {word:?}");
    }
    let environment: Value = serde_json::from_str(&s.read("run/environment.json")).expect("JSON");
    assert_eq!((&environment["seed"], &environment["version"]), (&5.into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(environment["adapter"]["name"], first_device(&s)["name"]);
    assert!(environment["adapter"]["driver"].is_string() && environment["features"]["f16"].is_boolean());
    for name in ["loss", "learning-rate", "confusion", "calibration", "samples", "mistakes", "filters"] {
        let png = std::fs::read(s.path(&format!("run/pictures/{name}.png"))).expect(name);
        assert!(png.starts_with(b"\x89PNG"), "{name}");
    }
    assert!(s.read("run/pictures/loss.svg").starts_with("<?xml"));
    // No half-written file stays.
    let left = std::fs::read_dir(s.path("run")).expect("the folder").filter_map(Result::ok);
    assert!(left.map(|f| f.file_name()).all(|n| !n.to_string_lossy().ends_with(".tmp")));
    // A model without convolutions has no filters.
    s.train("mlp", &["--epochs", "1", "--model", "mlp"]);
    assert!(!s.read("mlp/report.html").contains("Filters") && !s.path("mlp/pictures/filters.png").exists());
}

#[test]
fn a_model_with_attention_shows_where_it_looks() {
    let s = Shade::new();
    s.train("vit", &["--epochs", "1", "--model", "vit_micro"]);
    let page = s.read("vit/report.html");
    assert_self_contained(&page);
    for word in ["Where it looks", "Attention after epoch 1", "the class token asks for", "last 2 layers"] {
        assert!(page.contains(word), "no {word:?}");
    }
    assert_eq!(page.matches("<figcaption>all layers").count(), 8);
    assert!(s.path("vit/pictures/attention.png").exists());
    // One without has none.
    s.train("mlp", &["--epochs", "1", "--model", "mlp"]);
    assert!(!s.read("mlp/report.html").contains("Where it looks"));
}

#[test]
fn runs_are_compared_by_configuration() {
    let s = Shade::new();
    for (out, seed, lr) in [("a", "0", "0.002"), ("b", "1", "0.002"), ("c", "0", "0.02")] {
        s.train(out, &["--epochs", "1", "--model", "mlp", "--seed", seed, "--lr", lr, "--record-every", "2"]);
    }
    let text = s.good(&["compare", "a", "b", "c", "--out", "all.html"]);
    assert!(text.contains("lr 0.002 (2 seeds)") && text.contains("lr 0.02 ") && text.contains(" ± "), "{text}");
    let page = s.read("all.html");
    assert_self_contained(&page);
    for word in ["2 configurations compared", "Test accuracy</text>", "lr 0.002 (2 seeds)", "finished", "fill-opacity"]
    {
        assert!(page.contains(word), "no {word:?}");
    }
    s.bad(&["compare", "a", "nowhere"], 2, &["nowhere", "no such folder"]);
    std::fs::create_dir(s.path("empty")).expect("make a folder");
    s.bad(&["compare", "empty"], 2, &["empty", "config.resolved.toml"]);
    s.bad(&["compare"], 2, &["RUN"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_found_before_training() {
    let s = Shade::new();
    for file in ["report.html.tmp", "environment.json.tmp"] {
        let out = format!("run-{file}");
        std::fs::create_dir(s.path(&out)).expect("make a folder");
        // Whatever is written there finds no room.
        std::os::unix::fs::symlink("/dev/full", s.path(&out).join(file)).expect("a link");
        let args = ["train", "--model", "mlp", "--train-limit", "10", "--test-limit", "10", "--out", &out];
        let text = s.bad(&args, 1, &[file.trim_end_matches(".tmp"), "make room", "--out"]);
        assert!(!text.contains("epoch 1"), "{text}");
        // The folder can be used again once there is room.
        assert!(!s.path(&out).join("metrics.jsonl").exists());
    }
}

#[test]
fn papers_are_listed_with_what_was_measured() {
    let s = Shade::new();
    let text = s.good(&["papers"]);
    assert!(text.contains("coswin") && text.contains("worst-case-forget"), "{text}");
    let rows: Vec<Value> = serde_json::from_str(&s.good(&["papers", "--json"])).expect("JSON");
    assert_eq!(rows.len(), 36);
    for row in &rows {
        let (state, results) = (row["state"].as_str().expect("a state"), row["results"].as_array().expect("results"));
        assert!(["planned", "built", "measured"].contains(&state), "{row}");
        assert!(row["title"].is_string() && row["slug"].is_string());
        assert_eq!(state == "measured", results.iter().any(|r| r["run"]["preset"] != "smoke"), "{row}");
    }
}

/// The page is written from the results beside it: whoever records a run has to write it again.
#[test]
fn the_page_on_papers_is_what_the_results_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let s = Shade::new();
    for entry in std::fs::read_dir(docs.join("results")).expect("docs/results") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        s.write(&format!("docs/results/{name}"), std::fs::read(&path).expect("a result"));
    }
    s.good(&["papers", "--docs", "docs"]);
    let kept = std::fs::read_to_string(docs.join("papers.md")).expect("docs/papers.md");
    assert!(s.read("docs/papers.md") == kept, "write docs/papers.md again: shadegrad papers --docs docs");
}

#[test]
fn a_paper_runs_and_its_result_can_be_recorded() {
    let s = Shade::new();
    let text = s.good(&["run", "hard-samples", "--seeds", "3,", "--out", "mine"]);
    for word in ["hardest 0.5", "the paper's own", "one seed: the spread is not known", "report.html"] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    assert_self_contained(&s.read("mine/report.html"));
    let result: Value = serde_json::from_str(&s.read("mine/results.json")).expect("JSON");
    assert_eq!((&result["slug"], &result["seeds"][0]), (&"hard-samples".into(), &3.into()));
    s.good(&["papers", "--docs", "docs", "--record", "mine"]);
    let page = s.read("docs/papers.md");
    assert!(page.contains("### hard-samples: smoke, digits") && page.contains("--seeds 3,`"), "{page}");
    assert!(s.path("docs/results/hard-samples.smoke.digits.json").exists());
}

#[test]
fn wrong_runs_of_papers_are_refused() {
    let s = Shade::new();
    s.bad(&["run", "hard-sample"], 2, &["did you mean `hard-samples`"]);
    s.bad(&["run"], 2, &["--all"]);
    s.bad(&["run", "hard-samples", "--preset", "huge"], 2, &["smoke, small and full"]);
    s.bad(&["run", "hard-samples", "--preset", "full"], 2, &["--data"]);
    s.bad(&["run", "hard-samples", "--preset", "small", "--data", "nowhere"], 2, &["nowhere", "no such folder"]);
    s.bad(&["run", "hard-samples", "--data", "."], 2, &["embedded digits"]);
    s.bad(&["run", "hard-samples", "--seeds", "0"], 2, &["neither a number of seeds"]);
    s.bad(&["papers", "--record", "nowhere"], 2, &["--docs"]);
    s.bad(&["papers", "--docs", "docs", "--record", "nowhere"], 1, &["nowhere"]);
}

#[test]
fn a_device_is_verified_and_the_results_kept() {
    let s = Shade::new();
    let table = s.good(&["verify", "device", "--json", "device.json"]);
    assert!(table.contains("| device | ") && table.contains("| **all** | "), "{table}");
    let kept: Value = serde_json::from_str(&s.read("device.json")).expect("JSON");
    let rows = kept["rows"].as_array().expect("rows");
    assert!(rows.len() >= 6 && rows.iter().all(|r| r["state"] == "passed"), "{kept}");
    assert_eq!((kept["passed"].as_u64(), kept["failed"].as_u64()), (Some(rows.len() as u64), Some(0)));
    // What a device gets wrong is a failure; here one without the memory that the sums need.
    let starved = [("SHADEGRAD_MEMORY_LIMIT", "1000000")];
    s.bad_env(&["verify", "sums_of_ones", "--json", "starved.json"], &starved, 1, &["1 of 1 checks failed"]);
    let kept: Value = serde_json::from_str(&s.read("starved.json")).expect("JSON");
    assert_eq!((kept["passed"].as_u64(), kept["failed"].as_u64()), (Some(0), Some(1)));
    assert!(kept["rows"][0]["reason"].as_str().is_some_and(|t| t.contains("OutOfMemory")), "{kept}");
    s.bad_env(&["verify", "no such check"], &[], 1, &["no such check"]);
    s.bad_env(&["verify", "device", "--json", "missing/folder/x.json"], &[], 1, &["missing/folder/x.json"]);
}
