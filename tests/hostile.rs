//! A full disk: 507, no loss, and recovery when there is space again.

use kindred_embedded::small_disk::SmallDisk;

use crate::support::{PATIENCE, Server, interaction, until};

/// Embedded only: on services the disks are Kafka's and Cassandra's. If this fails, a full disk loses acknowledged events, or the
/// server does not recover by itself.
#[test]
fn a_full_disk_is_a_507_and_it_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    let shop = disk.path().join("shop");
    std::fs::create_dir(&shop).expect("a directory");
    let server = Server::start(&shop, &[]);
    let at = "2026-01-05T10:00:00Z";
    server.post_events("interactions", &[interaction("a", "x", "purchase", at), interaction("a", "y", "purchase", at)]);

    // Another process fills the disk.
    let ballast = disk.fill(1 << 20);
    let mut accepted = 2;
    let full = (0..2_000).find_map(|n| {
        let body = interaction(&format!("m{n}"), "x", "purchase", at).to_string();
        let answer = server.post("/v1/events/interactions", "application/json", body.as_bytes());
        if answer.status == 202 {
            accepted += 1;
            None
        } else {
            Some(answer)
        }
    });
    let full = full.expect("the disk is full");
    assert_eq!(full.status, 507, "{}", full.body);
    assert_eq!(server.get("/v1/items/x/similar?fill=false").status, 200, "reading goes on");

    drop(ballast);
    let record = interaction("b", "z", "purchase", at).to_string();
    let position = until(
        PATIENCE,
        || "it does not go on".to_owned(),
        || {
            let answer = server.post("/v1/events/interactions", "application/json", record.as_bytes());
            assert!([202, 507].contains(&answer.status), "{}", answer.body);
            (answer.status == 202).then(|| answer.json()["position"].as_str().expect("a position").to_owned())
        },
    );
    server.list("x", &position);
    let histories = server.export("histories");
    assert_eq!(
        histories.lines().count(),
        1 + accepted + 1,
        "what was acknowledged is there, and nothing else:\n{}",
        server.log()
    );
}
