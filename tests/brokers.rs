//! Three brokers under load; one after the other is killed, hangs, or is stopped for maintenance while the others lead its
//! partitions. The final export equals the oracle's, byte for byte.
//!
//! ```text
//! poster ──▶ kindred api ──▶ kafka, kafka-2, kafka-3 (three replicas, two have what is acknowledged) ──▶ kindred pipeline ──▶ Cassandra
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use kindred_model::Record;
use kindred_oracle::testing::{Shape, random_log};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::faults::{Ends, Services, Shop, post};
use crate::foreign::tool;
use crate::law::small;
use crate::support::{free_port, own_services, stopped, until_so};

/// The pause between two faults, under load.
const CALM: Duration = Duration::from_secs(2);
/// Records to be applied while a broker is away: more than were in flight.
const MEANWHILE: usize = 200;

/// Polls until a condition holds.
fn until(what: &str, shop: &Shop, is_so: impl FnMut() -> bool) {
    until_so(|| format!("{what}\n{}", shop.logs()), is_so);
}

/// If it failed, a lost or stopped broker would stop the shop, although others have all its data; or acknowledged events would be
/// lost.
#[test]
fn a_leader_that_moves_stops_nothing_and_loses_nothing() {
    let Ok(cassandra) = std::env::var("KINDRED_TEST_CASSANDRA") else {
        eprintln!("NOT RUN: several brokers (tests/run starts the services)");
        return;
    };
    let _turn = own_services();
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = ["kafka", "--kafka-port", "0", "--kafka-heap", "256m", "--kafka-brokers", "3"];
    let services = Services::start(temp.path(), &cluster);
    let brokers = services.address("KAFKA");
    let variant = small();
    let more = "[inputs]\nidentities_per_owner = 6\n[views.also_bought]\nwindow = 3\ntop = 4\n";
    let name = format!("brokers_{}", std::process::id());
    let shop = Shop::migrate(temp.path(), brokers, &cassandra, &name, more);
    let describe = |more: &[&str]| tool("TopicCommand", &[&["--bootstrap-server", brokers, "--describe"], more].concat(), b"");
    assert!(describe(&[]).contains("ReplicationFactor: 3"), "a topic that asks for no other has three replicas");

    let records = random_log(8, 4_000, &Shape::default());
    let mut feed: Vec<&Record> = records.iter().collect();
    feed.shuffle(&mut StdRng::seed_from_u64(8));
    let mut pipeline = shop.spawn("pipeline-0", &["pipeline"]);
    let listen = format!("127.0.0.1:{}", free_port());
    let _api = shop.spawn("api", &["api", "--listen", &listen]);
    let url = format!("http://{listen}");
    let (done, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    let positions = std::thread::scope(|scope| {
        let end = Ends(&ends);
        // Repeated until the last fault is over: posting is idempotent.
        let poster = scope.spawn(|| {
            let mut rng = StdRng::seed_from_u64(9);
            let mut positions = post(&url, &shop.key, &feed, &mut rng, &done);
            while !ends.load(Ordering::Acquire) {
                positions = post(&url, &shop.key, &feed[..MEANWHILE], &mut rng, &done);
            }
            positions
        });
        until("the first records are taken in", &shop, || done.load(Ordering::Acquire) > MEANWHILE);
        for (broker, fault) in [("kafka-2", "KILL"), ("kafka-3", "STOP"), ("kafka-2", "down"), ("kafka-3", "KILL")] {
            sleep(CALM);
            let before = done.load(Ordering::Acquire);
            match fault {
                "down" => services.down(broker),
                signal => services.send(broker, signal),
            }
            until(&format!("records are taken in without {broker}"), &shop, || done.load(Ordering::Acquire) > before + MEANWHILE);
            match fault {
                "STOP" => services.send(broker, "CONT"),
                _ => services.up_again(broker),
            }
            // Three replicas do not survive two faults at a time.
            until("every replica is in sync again", &shop, || describe(&["--under-replicated-partitions"]).trim().is_empty());
            eprintln!("{fault} {broker}: {} records are posted", done.load(Ordering::Acquire));
        }
        drop(end);
        poster.join().unwrap_or_else(|_| panic!("posting failed\n{}", shop.logs()))
    });

    shop.serves(&url, positions.last().expect("something was posted"));
    let status = stopped(&mut pipeline, || shop.logs());
    assert!(status.success(), "the pipeline ended with {status}: nothing of this ends it\n{}", shop.logs());
    shop.is_as(&records, &variant.semantics);
}
