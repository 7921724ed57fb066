//! Data of an earlier version: migrated at the first start, or refused with the command that helps. And the definitions of the
//! new format, over the real binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Server, VIEWS, kindred, kindred_ok, text};

/// A directory that commit 012dce5 made from the assets, with a second generation of window 2.
fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets/format-1")
}

fn unpacked(into: &Path) -> String {
    let archive = assets().join("shop.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(into).status().expect("tar runs");
    assert!(unpacked.success(), "{} does not unpack", archive.display());
    into.join("shop").to_str().expect("a path").to_owned()
}

fn import(topic: &str, file: &Path, data: &str) {
    let output = kindred(&["import", topic, file.to_str().expect("a path"), "--data", data]);
    // Conflicts give exit code 1.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn exports(data: &str, as_of: &str) -> Vec<String> {
    VIEWS.iter().map(|view| kindred_ok(&["export", view, "--as-of", as_of, "--data", data])).collect()
}

/// If this fails, an upgrade loses data, or serves other results than a new directory with the same files under today's rules.
#[test]
fn a_directory_of_format_1_is_migrated_at_the_first_start() {
    let temp = tempfile::tempdir().expect("a directory");
    let old = unpacked(temp.path());
    // Read-only commands do not migrate, and name the one that does.
    for args in [&["export", "points", "--data", &old][..], &["verify", "--data", &old]] {
        let output = kindred(args);
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains("format 1") && told.contains("kindred serve --data"), "{told}");
    }

    let new = temp.path().join("new").to_str().expect("a path").to_owned();
    for topic in ["catalog", "members", "orders", "interactions"] {
        import(topic, &assets().join(format!("{topic}.ndjson")), &new);
    }
    let more = temp.path().join("more.ndjson");
    std::fs::write(&more, "{\"member\":\"ann\",\"kind\":\"dismiss\",\"item\":\"jam\",\"at\":\"2026-01-09T10:00:00Z\"}\n")
        .expect("a file");
    for data in [&old, &new] {
        import("interactions", &more, data);
    }
    for as_of in ["2026-01-06", "2026-01-07", "2026-01-20"] {
        assert_eq!(exports(&old, as_of), exports(&new, as_of), "as of {as_of}");
    }
    for data in [&old, &new] {
        kindred_ok(&["verify", "--data", data]);
    }
    let points = |as_of: &str| kindred_ok(&["export", "points", "--as-of", as_of, "--data", &old]);
    // ann: 3 tea and 2 milk, a tea back on the 8th; 100 for ben. ben: 1 tea and 4 honey at 15, received on the 9th; 200 for cid and
    // dot. cid's order was cancelled under the version of its payment: 20 until the 12th.
    let header = "member,pending,available,from_items,from_invites\n";
    assert_eq!(points("2026-01-07"), format!("{header}ann,50,100,50,100\nben,75,200,75,200\ncid,20,0,20,0\n"));
    assert_eq!(points("2026-01-11"), format!("{header}ann,40,100,40,100\nben,0,275,75,200\ncid,20,0,20,0\n"));
    assert_eq!(points("2026-01-20"), format!("{header}ann,0,140,40,100\nben,0,275,75,200\n"));
    // The session stays linked to cid, the first; guests' orders are baskets.
    let histories = kindred_ok(&["export", "histories", "--data", &old]);
    assert!(histories.contains("cid,,honey,click,2026-01-07") && !histories.contains("ben,,honey,click"), "{histories}");
    let lists = kindred_ok(&["export", "also_bought", "--data", &old]);
    assert!(lists.contains("jam,1,honey"), "{lists}");

    // The other generation is migrated too, and everything survives a start of the server.
    let server = Server::start(Path::new(&old), &[]);
    assert_eq!(server.get_json("/v1/members/ben/points?as_of=2026-01-20")["available"], 275);
    assert_eq!(server.export("popularity"), kindred_exported(&new, "popularity"));
    server.stop();
    let generations = kindred_ok(&["generations", "--data", &old]);
    assert!(generations.contains("g2"), "{generations}");
}

fn kindred_exported(data: &str, view: &str) -> String {
    kindred_ok(&["export", view, "--data", data])
}

/// If this fails, results differ from their definition: guests are owners, scenarios are separate, a day's figures do not depend on later
/// events, and a dismissal is an interaction.
#[test]
fn the_definitions_of_format_2_hold_over_the_api() {
    let temp = tempfile::tempdir().expect("a directory");
    let settings = ["--set", "program.tz=Asia/Shanghai", "--set", "program.hold_days=0"];
    let server = Server::start(temp.path(), &settings);
    let order = |order: &str, version: u64, status: &str, member: Option<&str>, more: serde_json::Value| {
        let mut record = json!({
            "order": order, "version": version, "status": status, "member": member, "placed_at": "2026-01-05T17:00:00Z",
            "paid_at": "2026-01-05T17:00:00Z", "currency": "EUR", "lines": [
                { "line": 1, "item": "x", "quantity": 2, "unit_price_minor": 100 },
                { "line": 2, "item": "y", "quantity": 1, "unit_price_minor": 100 },
            ],
        });
        record.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        record
    };
    let click = |scenario: &str| json!({ "session": "s", "kind": "click", "item": "x", "at": "2026-01-05T10:00:00Z", "scenario": scenario });
    server.post_events("orders", &[order("g1", 1, "paid", None, json!({})), order("m1", 1, "paid", Some("m"), json!({}))]);
    server.post_events("interactions", &[click("home"), click("similar"), click("basket")]);
    server.post_events("interactions", &[json!({ "member": "m", "kind": "dismiss", "item": "z", "at": "2026-01-05T10:00:00Z" })]);
    let refunds = json!({ "refunds": [
        { "refund": "r1", "at": "2026-01-08T10:00:00Z", "line": 1, "quantity": 1, "amount_minor": 100 },
        { "refund": "goodwill", "at": "2026-01-09T10:00:00Z", "amount_minor": 50 },
    ]});
    let position = server.post_events("orders", &[order("m1", 2, "paid", Some("m"), refunds)]);
    assert_eq!(server.list_items("x", &position), ["y"]);
    // Two baskets: the guest's and the member's.
    assert_eq!(server.list("x", &position)["items"][0]["co_count"], 2);
    // 17:00 UTC on the 5th is the 6th in Shanghai; the refund is known from the 8th on.
    let points = |as_of: &str| server.get_json(&format!("/v1/members/m/points?as_of={as_of}"))["available"].clone();
    let told = ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08", "2026-01-20"].map(points);
    assert_eq!(told, [json!(0), json!(30), json!(30), json!(20), json!(20)]);
    let shown = server.get_json("/v1/members/m/orders");
    assert_eq!(
        shown["orders"][0]["refunded_minor"].as_i64().or(shown["items"][0]["refunded_minor"].as_i64()),
        Some(150),
        "{shown}"
    );
    let too_much = json!({ "refunds": [{ "refund": "r", "at": "2026-01-09T10:00:00Z", "amount_minor": 301 }] });
    let refused = order("m2", 1, "paid", Some("m"), too_much).to_string();
    let answer = server.post("/v1/events/orders", "application/json", refused.as_bytes());
    assert!(answer.body.contains("lines and shipping cost 300"), "{}", answer.body);
    let histories = server.export("histories");
    assert_eq!(histories.matches(",s,x,click,2026-01-05").count(), 3, "{histories}");
    assert!(histories.contains("m,,z,dismiss,2026-01-05"), "{histories}");
    server.stop();
}
