//! Executes the walkthroughs of `docs/ARCHITECTURE.md`: each `console` block is a session of a shell, `$ ` begins a command, and
//! what follows is what it prints. The address and the directory of the text are replaced by the test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::text;

/// One command and what it has to print.
struct Step {
    command: String,
    expected: String,
}

/// The walkthroughs: title and steps.
fn walkthroughs(markdown: &str) -> Vec<(String, Vec<Step>)> {
    let mut found: Vec<(String, Vec<Step>)> = Vec::new();
    let mut inside = false;
    for line in markdown.lines() {
        if let Some(title) = line.strip_prefix("### Walkthrough: ") {
            found.push((title.to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some((_, steps)) = found.last_mut() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), expected: String::new() });
            } else if let Some(more) = line.strip_prefix("> ") {
                let step = steps.last_mut().expect("a continued line follows a command");
                step.command.push('\n');
                step.command.push_str(more);
            } else {
                let step = steps.last_mut().expect("output follows a command");
                step.expected.push_str(line);
                step.expected.push('\n');
            }
        }
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn execute(title: &str, steps: &[Step]) {
    const END: &str = "--end-of-step--";
    assert!(!steps.is_empty(), "{title}: has no step");
    let temp = tempfile::tempdir().expect("a directory");
    let (port, admin) = (free_port(), free_port());
    let mut script = String::from("set -u\ntrap 'kill -9 $(jobs -p) 2>/dev/null' EXIT\n");
    for step in steps {
        let command = step.command.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
        script.push_str(&format!("{command}\necho '{END}'\n"));
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_kindred")).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(temp.path())
        .env("PATH", path)
        .env("KINDRED_API__ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .env("KINDRED_TELEMETRY__LOG", "warn")
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let stdout = text(&output.stdout);
    let printed: Vec<&str> = stdout.split(&format!("{END}\n")).collect();
    for (step, printed) in steps.iter().zip(&printed) {
        assert_eq!(
            printed.trim_end(),
            step.expected.trim_end(),
            "\n{title}: $ {}\nand on stderr:\n{}",
            step.command,
            text(&output.stderr)
        );
    }
    assert_eq!(printed.len(), steps.len() + 1, "{title}: the session ended early\n{}", text(&output.stderr));
}

/// If this fails, docs/ARCHITECTURE.md tells a person something that does not happen.
#[test]
fn the_walkthroughs_of_architecture_do_what_they_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let markdown = std::fs::read_to_string(path).expect("docs/ARCHITECTURE.md");
    let walkthroughs = walkthroughs(&markdown);
    assert_eq!(walkthroughs.len(), 4, "the four walkthroughs of the document");
    std::thread::scope(|scope| {
        for (title, steps) in &walkthroughs {
            scope.spawn(move || execute(title, steps));
        }
    });
}
