//! Hostile input over HTTP: a 4xx that names the field, or 507; no panic, no loss, and recovery when there is disk space again.

use serde_json::json;

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::{PATIENCE, Server, interaction, until};

/// If this fails, a broken record gets no explanation, or ends the server.
fn broken_records_get_a_4xx_that_names_the_field(backend: Backend) {
    let Some(place) = Place::new(backend, "hostile", &[]) else { return };
    let server = place.start(&[]);
    let at = "2026-01-05T10:00:00Z";
    let long = "x".repeat(129);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("interactions", b"not json".to_vec(), ""),
        ("interactions", b"{\"member\":\"m\"".to_vec(), ""),
        ("interactions", vec![b'{', 0xff, 0xfe, b'}'], ""),
        ("interactions", br#"{"member":"m","item":"i","kind":"view","at":NaN}"#.to_vec(), ""),
        ("interactions", br#"{"member":"m","item":"i","kind":"view","at":"2026-01-05T10:00:00Z","rating":1e400}"#.to_vec(), ""),
        ("interactions", deep.into_bytes(), ""),
        (
            "interactions",
            json!({"member": "m", "item": "i", "kind": "view", "at": "1970-01-01T00:00:00Z"}).to_string().into(),
            "/at",
        ),
        (
            "interactions",
            json!({"member": "m", "item": "i", "kind": "view", "at": "9999-01-01T00:00:00Z"}).to_string().into(),
            "/at",
        ),
        ("interactions", json!({"member": "m", "item": "i", "kind": "stare", "at": at}).to_string().into(), "/kind"),
        ("interactions", json!({"member": "m", "item": long, "kind": "view", "at": at}).to_string().into(), "/item"),
        ("interactions", json!({"member": "m\n", "item": "i", "kind": "view", "at": at}).to_string().into(), "/member"),
        ("interactions", json!({"item": "i", "kind": "view", "at": at}).to_string().into(), "/member"),
        (
            "interactions",
            json!({"member": "m", "item": "i", "kind": "view", "at": at, "rating": "five"}).to_string().into(),
            "/rating",
        ),
        (
            "orders",
            json!({"order": "o", "version": 1, "status": "paid", "placed_at": at, "currency": "EUR",
                "lines": [{"line": 1, "item": "i", "quantity": 1.5, "unit_price_minor": 1}]})
            .to_string()
            .into(),
            "/lines/0/quantity",
        ),
        (
            "orders",
            json!({"order": "o", "version": 1, "status": "paid", "placed_at": at, "currency": "XXX",
                "lines": [{"line": 1, "item": "i", "quantity": 1, "unit_price_minor": 1}]})
            .to_string()
            .into(),
            "/currency",
        ),
        (
            "catalog",
            json!({"item": "i", "version": 1, "kind": "good", "title": "t", "url": "javascript:alert(1)"}).to_string().into(),
            "/url",
        ),
        ("members", json!({"member": "m", "version": -1, "state": "activated"}).to_string().into(), "/version"),
    ];
    for (topic, body, pointer) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = server.post(&format!("/v1/events/{topic}"), "application/json", &body);
        assert!((400..500).contains(&answer.status), "{shown}: answered {} {}", answer.status, answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{shown}");
        if !pointer.is_empty() {
            assert!(answer.body.contains(&format!("\"{pointer}\"")), "{shown}: names no {pointer}: {}", answer.body);
        }
    }
    let line = vec![b'x'; 10 << 20];
    let answer = server.try_post("/v1/events/interactions", "application/x-ndjson", &line);
    // After an early 413 the server may close the connection.
    assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)));

    let position =
        server.post_events("interactions", &[interaction("a", "x", "purchase", at), interaction("a", "y", "purchase", at)]);
    assert_eq!(server.list_items("x", &position), ["y"], "it goes on after all that");
}

on_both_back_ends!(broken_records_get_a_4xx_that_names_the_field);

/// Embedded only: on services the disks are Kafka's and Cassandra's. If this fails, a full disk loses acknowledged events, or the
/// server does not recover by itself.
#[test]
fn a_full_disk_is_a_507_and_it_goes_on_when_there_is_room() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("small");
    std::fs::create_dir(&dir).expect("a directory");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m", "kindred-test"])
        .arg(&dir)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("not run: a small file system cannot be mounted here (needs root)");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(dir.clone());
    let shop = dir.join("shop");
    std::fs::create_dir(&shop).expect("a directory");
    let server = Server::start(&shop, &[]);
    let at = "2026-01-05T10:00:00Z";
    server.post_events("interactions", &[interaction("a", "x", "purchase", at), interaction("a", "y", "purchase", at)]);

    // Another process fills the disk.
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("a file");
    let chunk = vec![0u8; 1 << 20];
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    drop(file);

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

    std::fs::remove_file(&ballast).expect("it can be removed");
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
