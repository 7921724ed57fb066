//! Executes the command blocks of docs/OPERATIONS.md in order. A block's info string is:
//!
//! ```text
//! sh                     executed in one session, embedded
//! sh on-services         executed in another session, if there are services
//! sh not-run: REASON     not executed
//! ```
//!
//! Addresses and paths of the text are replaced by the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::installation::Installation;
use crate::support::{SESSION, ended_within, free_port, text};

/// The shop of the text.
const ORDERS: &str = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status\n\
                      o1,ann,tea,1,500,1767600000000,paid\no1,ann,cup,1,300,1767600000000,paid\n\
                      o2,ben,tea,1,500,1767600001000,paid\no2,ben,cup,1,300,1767600001000,paid\n";

/// A block: first line, info string, commands.
struct Block {
    line: usize,
    mark: String,
    commands: String,
}

fn blocks() -> Vec<Block> {
    let markdown = std::fs::read_to_string("docs/OPERATIONS.md").expect("docs/OPERATIONS.md");
    let mut found: Vec<Block> = Vec::new();
    let mut inside: Option<bool> = None;
    for (n, line) in markdown.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(_), Some(_)) => inside = None,
            (Some(kind), None) => {
                let mark = kind.strip_prefix("sh").filter(|rest| rest.is_empty() || rest.starts_with(' '));
                inside = Some(mark.is_some());
                if let Some(mark) = mark {
                    found.push(Block { line: n + 1, mark: mark.trim().to_owned(), commands: String::new() });
                }
            }
            (None, Some(true)) => {
                let block = found.last_mut().expect("it is inside of one");
                block.commands.push_str(line);
                block.commands.push('\n');
            }
            _ => {}
        }
    }
    assert!(inside.is_none(), "a block of docs/OPERATIONS.md does not end");
    found
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Executes blocks as one session in a directory; the first failing command ends it.
fn execute(dir: &Path, blocks: &[Block]) {
    assert!(!blocks.is_empty());
    std::fs::create_dir_all(dir.join("etc")).expect("a folder");
    std::fs::write(dir.join("orders.csv"), ORDERS).expect("a file");
    let places: BTreeMap<&str, String> = [
        ("127.0.0.1:8080", free_address()),
        ("127.0.0.1:9090", free_address()),
        ("127.0.0.1:9091", free_address()),
        ("/var/lib/kindred", "shop".to_owned()),
        ("/etc/", "etc/".to_owned()),
    ]
    .into();
    let mut script = String::from("set -euo pipefail\ntrap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n");
    for block in blocks {
        let commands = places.iter().fold(block.commands.clone(), |text, (from, to)| text.replace(from, to));
        script.push_str(&format!("echo 'the block at line {}'\n{commands}", block.line));
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_kindred")).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // Into files: processes that outlive the session would hold pipes open.
    let said = dir.join("said");
    let file = std::fs::File::create(&said).expect("a file");
    let mut session = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir)
        .env("PATH", path)
        .env("KINDRED_TELEMETRY__LOG", "warn")
        .env("KINDRED_API__LISTEN", &places["127.0.0.1:8080"])
        .env("KINDRED_API__ADMIN_LISTEN", &places["127.0.0.1:9090"])
        .env("KINDRED_PIPELINE__ADMIN_LISTEN", &places["127.0.0.1:9091"])
        .env_remove("KINDRED_DATA")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .expect("bash runs");
    let said = || text(&std::fs::read(&said).expect("what it said"));
    let status = ended_within(&mut session, SESSION, said);
    assert!(status.success(), "docs/OPERATIONS.md: {status}\n{}", said());
}

fn marked(mark: &str) -> Vec<Block> {
    blocks().into_iter().filter(|block| block.mark == mark).collect()
}

/// If it failed, the manual would have a block that is not executed, without a reason.
#[test]
fn every_block_is_executed_or_says_why_not() {
    for Block { line, mark, commands } in blocks() {
        assert!(!commands.trim().is_empty(), "docs/OPERATIONS.md:{line}: an empty block");
        let reason = mark.strip_prefix("not-run: ").unwrap_or_default();
        let known = mark.is_empty() || mark == "on-services" || reason.len() > 10;
        assert!(known, "docs/OPERATIONS.md:{line}: the mark {mark:?} is none");
    }
}

/// If it failed, an operator who follows the manual would meet an error.
#[test]
fn the_commands_of_operations_work_embedded() {
    let temp = tempfile::tempdir().expect("a directory");
    execute(temp.path(), &marked(""));
}

/// The same on services.
#[test]
fn the_commands_of_operations_work_on_services() {
    let Some(on) = Installation::with("operations", "") else { return };
    execute(on.dir(), &marked("on-services"));
}
