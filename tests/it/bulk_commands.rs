//! `feature-store load` and `feature-store export`, as people and pipelines run them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use feature_store::table::Format;
use serde_json::{Value, json};

use crate::client::Client;
use crate::tables;
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    what_is_loaded_is_exported_again_in_every_format,
    rejected_rows_have_an_exit_code_and_a_file,
];

/// Runs the binary in `directory`; `input` is its standard input.
async fn run(client: &Client, directory: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feature-store"));
    command.current_dir(directory).env_clear().args(args);
    command.env("FEATURE_STORE_LISTEN", client.address.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the built binary can be started");
    let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_vec());
    let run = move || {
        // A program that does not read all of it closes the pipe.
        let _ = stdin.write_all(&input);
        drop(stdin);
        child.wait_with_output().expect("it ends")
    };
    tokio::task::spawn_blocking(run).await.expect("it does not panic")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_code(output: &Output, code: i32, wanted: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(wanted), "{wanted:?} in {}", said(output));
}

async fn shop(on: On) -> (TestServer, tempfile::TempDir) {
    let server = on.server().await;
    server.declare("product", tables::schema()).await;
    (server, tempfile::tempdir().expect("a directory"))
}

async fn what_is_loaded_is_exported_again_in_every_format(on: On) {
    let (server, dir) = shop(on).await;
    let rows = tables::products(300, feature_store::clock::Clock::now(&*server.clock));
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("a.parquet"), tables::encode(Format::Parquet, &rows[..100])).unwrap();
    std::fs::write(path("b.jsonl"), tables::encode(Format::Ndjson, &rows[100..200])).unwrap();
    let load = ["load", "a.parquet", "b.jsonl", "--entity-type", "product", "--run-id", "r 1&x"];
    let output = run(&server, dir.path(), &load, b"").await;
    assert_code(&output, 0, "a.parquet: 100 rows in ");
    assert_code(&output, 0, "b.jsonl: 100 rows in ");
    // No terminal: nothing but the summary is said.
    assert!(output.stderr.is_empty(), "{}", said(&output));
    let stdin = ["load", "--from-stdin", "--format", "csv", "--entity-type", "product"];
    let output = run(&server, dir.path(), &stdin, &tables::encode(Format::Csv, &rows[200..])).await;
    assert_code(&output, 0, "standard input: 100 rows in ");
    assert_code(&run(&server, dir.path(), &load, b"").await, 0, "100 unchanged");
    let read = server.read("product/3", "include=metadata&names=stock").await;
    assert_eq!(read["metadata"]["stock"]["run_id"], "r 1&x");

    for format in Format::ALL {
        let file = format!("export.{}", format.name());
        let export = ["export", "product", "--output", &file, "--ordered", "--features", "price,stock"];
        assert_code(&run(&server, dir.path(), &export, b"").await, 0, &file);
        let query = format!("format={}&order=entity_id&features=price,stock", format.name());
        let wanted = server.get(&format!("/v1/entity-types/product/export?{query}")).await.body;
        assert_eq!(std::fs::read(path(&file)).unwrap(), wanted, "{format:?}");
        assert!(!path(&format!("{file}.unfinished")).exists());
    }
    let export = ["export", "product", "--format", "ndjson", "--entity-id", "7", "--features", "stock"];
    let output = run(&server, dir.path(), &export, b"").await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{}\n", json!({"entity_id": "7", "stock": rows[7]["stock"]}))
    );
}

async fn rejected_rows_have_an_exit_code_and_a_file(on: On) {
    let (server, dir) = shop(on).await;
    let mut rows = tables::products(50, feature_store::clock::Clock::now(&*server.clock));
    for row in [3, 40] {
        rows[row]["stock"] = json!(0.5);
    }
    std::fs::write(dir.path().join("rows.csv"), tables::csv(&rows)).unwrap();
    let load = ["load", "rows.csv", "--entity-type", "product", "--rejects", "rejects"];
    assert_code(&run(&server, dir.path(), &load, b"").await, 1, "2 rows were rejected");
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let rejects = lines("rejects");
    let places: Vec<Value> =
        rejects.iter().map(|line| json!([line["file"], line["row"], line["entity_id"]])).collect();
    assert_eq!(places, [json!(["rows.csv", 3, "3"]), json!(["rows.csv", 40, "40"])]);
    assert_eq!(rejects[0]["errors"][0]["feature"], "stock");
    // A list that is cut says so.
    let cut = run(&server, dir.path(), &[&load[..], &["--max-rejections", "1"]].concat(), b"").await;
    assert_code(&cut, 1, "only the first 1 of 2 rejected rows are listed in rejects");
    assert_eq!(lines("rejects").len(), 1);
    assert_code(&run(&server, dir.path(), &load[..4], b"").await, 1, "row 3 (3): stock: ");
}

#[tokio::test]
async fn exit_codes_tell_who_has_to_do_what() {
    let (server, dir) = shop(On::Embedded).await;
    std::fs::write(dir.path().join("rows.csv"), "entity_id,price\n1,1.5\n").unwrap();
    std::fs::write(dir.path().join("broken.csv"), "entity_id,price\n1,2.5\n2\n").unwrap();
    std::fs::write(dir.path().join("rows.txt"), "entity_id,price\n1,1.5\n").unwrap();
    let of = ["--entity-type", "product"];
    let elsewhere = ["--entity-type", "product", "--url", "http://127.0.0.1:1"];
    let cases: [(&[&str], &[&str], i32, &str); 11] = [
        (&["load"], &of, 2, "required"),
        (&["load", "rows.csv"], &[], 2, "--entity-type"),
        (&["load", "nothing.csv"], &of, 2, "nothing.csv"),
        (&["load", "rows.txt"], &of, 2, "--format"),
        (&["load", "rows.csv", "--api-key-file", "nothing"], &of, 2, "nothing"),
        (&["load", "rows.csv"], &elsewhere, 3, "127.0.0.1:1"),
        (&["load", "broken.csv"], &of, 4, "line 3: 1 fields"),
        (&["load", "rows.csv", "--id-column", "id"], &of, 4, "there is no column \"id\""),
        (&["load", "rows.csv", "--nulls", "maybe"], &of, 4, "nulls"),
        (&["export", "product"], &[], 2, "--format"),
        (&["export", "nothing", "--output", "x.csv"], &[], 4, "nothing"),
    ];
    for (command, rest, code, wanted) in cases {
        assert_code(&run(&server, dir.path(), &[command, rest].concat(), b"").await, code, wanted);
    }
    assert!(!dir.path().join("x.csv").exists());
    let load = ["load", "rows.csv", "--async", "--entity-type", "product"];
    assert_code(&run(&server, dir.path(), &load, b"").await, 0, "/v1/jobs/");
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_told_however_long_the_table_is() {
    let keys = "keys: [{name: reader, sha256: \"0000000000000000000000000000000000000000000000000000000000000000\", scopes: [read]}]";
    let server = On::Embedded
        .server_with(|config| config.api_keys = Some(feature_store::config::Secret::new(keys.to_owned())))
        .await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "fsk_nonsense\n").unwrap();
    let mut long = "entity_id,price\n".to_owned();
    (0..1_000_000).for_each(|row| long += &format!("{row},1.5\n"));
    std::fs::write(dir.path().join("long.csv"), long).unwrap();
    let load = ["load", "long.csv", "--entity-type", "product", "--api-key-file", "key"];
    assert_code(&run(&server, dir.path(), &load, b"").await, 4, "API key");
}
