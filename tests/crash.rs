//! Kill -9 under load: no acknowledged event is lost or duplicated, and the results equal the oracle's.
//!
//! On both backends; on services the pipeline and the API are killed (`faults` kills Kafka and Cassandra). `KINDRED_KILLS` sets
//! the number of kills (CI: a few; `tests/kills 200` for the long run).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::text;

/// Records per request, which is acknowledged as a whole.
const BATCH: usize = 20;
/// Enough to stay below the cap of identities per owner.
const MEMBERS: usize = 6_000;
const ITEMS: usize = 40;

fn kills(backend: Backend) -> u64 {
    let kills: u64 = std::env::var("KINDRED_KILLS").ok().map_or(8, |kills| kills.parse().expect("KINDRED_KILLS is a number"));
    match backend {
        Backend::Embedded => kills,
        // Each start there writes every row again.
        Backend::Services => kills.div_ceil(2),
    }
}

/// Event n as NDJSON: a purchase, all different, so that each can be found.
fn event(n: usize) -> (String, String) {
    let (member, item, day) = (n % MEMBERS, (n / MEMBERS) % ITEMS, n / (MEMBERS * ITEMS));
    let date = format!("{}-{:02}-{:02}", 2010 + day / 336, 1 + day / 28 % 12, 1 + day % 28);
    let key = format!("m{member:04},,i{item:02},purchase,{date}");
    let line = format!(
        r#"{{"member":"m{member:04}","item":"i{item:02}","kind":"purchase","at":"{date}T{:02}:{:02}:{:02}Z"}}"#,
        n % 24,
        n % 60,
        n % 59
    );
    (key, line)
}

/// If this fails, a crash can lose or duplicate an acknowledged event.
fn kill_9_loses_no_acknowledged_event_and_doubles_none(backend: Backend) {
    let Some(place) = Place::new(backend, "crash", &[]) else { return };
    let mut rng = StdRng::seed_from_u64(9);
    let mut next = 0usize;
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    let mut sent: BTreeSet<String> = BTreeSet::new();
    for _ in 0..kills(backend) {
        let server = place.start(&[]);
        let pids = server.pids();
        let killed = AtomicBool::new(false);
        let alive_ms = rng.random_range(1..400);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(alive_ms));
                for pid in pids {
                    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
                }
                killed.store(true, Ordering::Release);
            });
            while !killed.load(Ordering::Acquire) {
                let (mut keys, mut body) = (Vec::new(), String::new());
                for n in next..next + BATCH {
                    let (key, line) = event(n);
                    keys.push(key);
                    body.push_str(&line);
                    body.push('\n');
                }
                next += BATCH;
                sent.extend(keys.iter().cloned());
                let answer = server.try_post("/v1/events/interactions", "application/x-ndjson", body.as_bytes());
                match answer {
                    Some(answer) if answer.status == 202 => acknowledged.extend(keys),
                    Some(answer) => panic!("answered {}: {}", answer.status, answer.body),
                    None => break,
                }
            }
        });
        server.kill();
    }

    // A ready server may still have a backlog; a stopped one has applied it.
    place.start(&[]).stop();
    let histories = place.ok(&["export", "histories", "--format", "csv"]);
    let mut found: BTreeSet<String> = BTreeSet::new();
    for row in histories.lines().skip(1) {
        let key = row.rsplit_once(',').expect("an `at`").0.to_owned();
        assert!(found.insert(key.clone()), "{key} stands twice");
    }
    assert!(acknowledged.len() > BATCH, "too few events were acknowledged for the test to mean anything");
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} acknowledged events are lost, the first: {}", lost.len(), lost[0]);
    let invented: Vec<_> = found.difference(&sent).collect();
    assert!(invented.is_empty(), "events that nobody sent: {invented:?}");
    let verified = place.run(&["verify"]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
}
on_both_back_ends!(kill_9_loses_no_acknowledged_event_and_doubles_none);
