//! Executes the walkthroughs of `docs/ARCHITECTURE.md`: each `console` block is a shell session, `$ ` begins a command, and its
//! expected output follows. Address and directory are replaced by the test's own.
//!
//! On services the same text runs: a stand-in for `kindred` maps `serve --data shop` to a pipeline and an API that end with it,
//! and `--data shop` of other commands to the settings file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::{Installation, key_in};
use crate::place::{Backend, on_both_back_ends};
use crate::support::{SESSION, free_port, output, text};

/// The stand-in, configured by the environment; the kernel kills its processes with it.
const STAND_IN: &str = r#"#!/usr/bin/env bash
set -u
verb=$1
shift
more=() from=() listen=()
while [ $# -gt 0 ]; do
    case "$1" in
        --data) shift 2 ;;
        --from) from=("$1" "$2"); shift 2 ;;
        --listen) listen=("$1" "$2"); shift 2 ;;
        *) more+=("$1"); shift ;;
    esac
done
if [ "$verb" != serve ]; then
    # What asks a running API names no settings file.
    case " ${more[*]} " in *" --url "*) exec "$REAL_KINDRED" "$verb" "${more[@]}" ;; esac
    exec "$REAL_KINDRED" "$verb" "${more[@]}" --config "$REAL_CONFIG"
fi
mkdir -p shop
printf '%s\n' "$REAL_KEY" > shop/service.key
setpriv --pdeathsig KILL "$REAL_KINDRED" pipeline "${from[@]}" --config "$REAL_CONFIG" &
pipeline=$!
setpriv --pdeathsig KILL "$REAL_KINDRED" api "${listen[@]}" --config "$REAL_CONFIG" &
api=$!
echo "$pipeline $api" > shop/pids
trap 'kill -TERM $pipeline $api' TERM
wait
wait
"#;

/// `wait` of the session on services. The processes die a little after the killed stand-in: waiting for it alone would still
/// reach the old API.
const WAIT_FOR_ALL: &str = r#"wait() {
    builtin wait "$@"
    local status=$? pid
    for pid in $(cat shop/pids 2>/dev/null); do
        while grep -q '^State:[[:space:]]*[^ZX]' "/proc/$pid/status" 2>/dev/null; do sleep 0.02; done
    done
    return $status
}
"#;

/// One command and its expected output.
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

/// Installs the stand-in; returns the folder for its PATH.
fn stand_in(on: &Installation, key: &str, session: &mut Command) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = on.dir().join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join("kindred");
    std::fs::write(&file, STAND_IN).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    session.env("REAL_KINDRED", env!("CARGO_BIN_EXE_kindred")).env("REAL_CONFIG", on.config()).env("REAL_KEY", key);
    folder
}

fn execute(title: &str, steps: &[Step], on: Option<(Installation, String)>) {
    const END: &str = "--end-of-step--";
    assert!(!steps.is_empty(), "{title}: has no step");
    let temp = tempfile::tempdir().expect("a directory");
    let (port, admin) = (free_port(), free_port());
    let mut script = String::from("set -u\ntrap 'kill -9 $(jobs -p) 2>/dev/null' EXIT\n");
    for step in steps {
        let command = step.command.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
        script.push_str(&format!("{command}\necho '{END}'\n"));
    }
    let mut session = Command::new("bash");
    let folder = match &on {
        None => Path::new(env!("CARGO_BIN_EXE_kindred")).parent().expect("a folder").to_owned(),
        Some((on, key)) => {
            script.insert_str(0, WAIT_FOR_ALL);
            stand_in(on, key, &mut session)
        }
    };
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    session.args(["-c", &script]).current_dir(temp.path()).env("PATH", path).env("KINDRED_TELEMETRY__LOG", "warn");
    session.env("KINDRED_API__ADMIN_LISTEN", format!("127.0.0.1:{admin}"));
    let output = output(session, SESSION);
    let stdout = text(&output.stdout);
    let printed: Vec<&str> = stdout.split(&format!("{END}\n")).collect();
    for (step, printed) in steps.iter().zip(&printed) {
        assert_eq!(
            printed.trim_end(),
            step.expected.trim_end(),
            "\n{title}: $ {}\nand on stderr:\n{}and the server:\n{}",
            step.command,
            text(&output.stderr),
            std::fs::read_to_string(temp.path().join("server.log")).unwrap_or_default()
        );
    }
    assert_eq!(printed.len(), steps.len() + 1, "{title}: the session ended early\n{}", text(&output.stderr));
}

/// If this fails, docs/ARCHITECTURE.md is wrong.
fn the_walkthroughs_of_architecture_do_what_they_say(backend: Backend) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let markdown = std::fs::read_to_string(path).expect("docs/ARCHITECTURE.md");
    let walkthroughs = walkthroughs(&markdown);
    assert_eq!(walkthroughs.len(), 4, "the four walkthroughs of the document");
    std::thread::scope(|scope| {
        for (n, (title, steps)) in walkthroughs.iter().enumerate() {
            let on = match backend {
                Backend::Embedded => None,
                Backend::Services => {
                    // The text has positions of topics with one partition.
                    let Some(on) = Installation::partitioned(&format!("walk_{n}"), 1, "") else { return };
                    let key = key_in(&on.ok(&["migrate"]));
                    Some((on, key))
                }
            };
            scope.spawn(move || execute(title, steps, on));
        }
    });
}
on_both_back_ends!(the_walkthroughs_of_architecture_do_what_they_say);
