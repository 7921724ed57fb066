//! Tests the contract against the running server: schemathesis sends valid and invalid requests from /openapi.json and checks
//! each answer; then the generated TypeScript client runs its example.
//!
//! ```text
//! /openapi.json ──schemathesis──▶ requests ──▶ kindred serve ──▶ answers ──▶ documented? of its schema? refused if invalid?
//! ```
//!
//! tests/contract installs the tools and sets `KINDRED_CONTRACT` to their folder. tests/contract.toml says what is tested, and
//! what is not and why.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::members::Shop;
use crate::people::{PASSWORD, text_of};
use crate::place::Backend;
use crate::support::{Server, interaction, order};

/// The folder of the tools, if installed.
fn tools() -> Option<PathBuf> {
    let tools = std::env::var_os("KINDRED_CONTRACT").map(PathBuf::from);
    if tools.is_none() {
        eprintln!("not run: KINDRED_CONTRACT is not set (tests/contract sets it once its tools are installed)");
    }
    tools
}

/// Values for a parameter, one a line.
fn dictionary(dir: &Path, name: &str, words: &[&str]) {
    let lines: String = words.iter().map(|word| format!("{}\n", json!(word))).collect();
    std::fs::write(dir.join(name), lines).expect("a file");
}

/// Runs schemathesis with these arguments and tokens over a server.
fn schemathesis(tools: &Path, dir: &Path, url: &str, tokens: (&str, &str), args: &[&str]) {
    let run = Command::new(tools.join("venv/bin/schemathesis"))
        .args(["--no-color", "--config-file"])
        .arg(dir.join("contract.toml"))
        .args(["run", &format!("{url}/openapi.json")])
        .args(args)
        .env("SERVICE_KEY", tokens.0)
        .env("ACCESS_TOKEN", tokens.1)
        .current_dir(dir)
        .output()
        .expect("schemathesis runs");
    let told = crate::support::text(&run.stdout) + &crate::support::text(&run.stderr);
    assert!(run.status.success(), "{args:?} ended with {}\n{told}", run.status);
    println!("{told}");
}

fn flags(flag: &'static str, values: &[&'static str]) -> Vec<&'static str> {
    values.iter().flat_map(|value| [flag, *value]).collect()
}

/// If it failed, a client would meet an undocumented status, body or header; or the server would fail, or accept invalid input.
#[test]
fn every_answer_is_in_the_contract() {
    let Some(tools) = tools() else { return };
    let shop = Shop::open(Backend::Embedded, "contract").expect("it needs no services");
    let api = shop.api(0);
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract.toml"), dir.join("contract.toml")).expect("a copy");

    // A shop with data.
    let found = [shop.member(0, "otis", "13800138001"), shop.member(0, "vera", "13800138002")];
    let ids = [text_of(&found[0], "member"), text_of(&found[1], "member")];
    let at = "2026-01-05T10:00:00Z";
    let seen: Vec<_> = ["tent", "lamp"].iter().map(|item| interaction(ids[0], item, "purchase", at)).collect();
    api.post_events("interactions", &seen);
    api.post_events("catalog", &[json!({ "item": "tent", "version": 1, "kind": "good", "category": ["camp"], "title": "Tent" })]);
    let position = api.post_events("orders", &[order("o1", 1, "completed", ids[1], at, &["tent", "lamp"])]);
    api.list("tent", &position);
    dictionary(dir, "members.dict", &ids);
    dictionary(dir, "positions.dict", &["0", &position]);
    dictionary(dir, "passwords.dict", &[PASSWORD]);

    // Routes of signed-in members, before staff suspends them.
    let own = ["redeem_setup_token", "list_own_sessions"];
    // Routes that end a session or an account have their own.
    let ending = ["sign_out", "end_own_sessions", "end_own_session", "change_password", "close_account", "confirm_totp"];
    // Only an invalid token can be shown here: a 401 does not prove the key.
    let shown = ["refresh", "show_second_factor"];
    // Routes that may end the service key come last.
    let last = ["rotate_key", "revoke_key"];
    let run = |token: &str, args: Vec<&str>| schemathesis(&tools, dir, &api.url, (&api.key, token), &args);
    let only = |ids: &[&'static str]| flags("--include-operation-id", ids);
    let but = |ids: &[&'static str]| flags("--exclude-operation-id", ids);

    let mara = shop.member(0, "mara", "13800138003");
    run(text_of(&mara, "access_token"), [vec!["--include-tag", "account"], only(&own), but(&ending)].concat());
    for (n, id) in ending.into_iter().enumerate() {
        let member = shop.member(0, &format!("leaving-{n}"), &format!("1380013801{n}"));
        run(text_of(&member, "access_token"), only(&[id]));
    }
    run("", [vec!["--exclude-tag", "account"], but(&own), but(&ending), but(&shown), but(&last)].concat());
    run("", [only(&shown), vec!["--warnings", "off"]].concat());
    run("", only(&last));
    // The server is still healthy.
    assert_eq!(api.get("/readyz").status, 200);
}

/// Runs a script of the TypeScript client; returns its output.
fn npm(script: &str, env: &[(&str, &str)]) -> String {
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/typescript");
    let run = Command::new("npm").args(["run", "--silent", script]).current_dir(client).envs(env.iter().copied()).output();
    let run = run.expect("npm runs");
    let (stdout, stderr) = (crate::support::text(&run.stdout), crate::support::text(&run.stderr));
    assert!(run.status.success(), "npm run {script} ended with {}\n{stdout}\n{stderr}", run.status);
    stdout
}

/// If it failed, the client would have wrong types, or an example that does not work.
#[test]
fn the_typescript_client_does_what_its_example_says() {
    if tools().is_none() {
        return;
    }
    npm("check", &[]);
    npm("build", &[]);
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("shop");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Server::start(&dir, &[]);
    let printed = npm("example", &[("KINDRED_URL", &*server.url), ("KINDRED_KEY", &*server.key)]);
    let expected = "4 events, up to i0.4\n\
                    with kettle goes teapot (1)\n\
                    400 invalid_parameter: days: is not a whole number from 1 to 3660\n";
    assert_eq!(printed, expected);
}
