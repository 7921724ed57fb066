//! Fail points in a process of its own, over the embedded store: it dies as by kill -9, and another goes on with what is on disk.

use std::process::Command;
use std::sync::Arc;

use kindred_members::points;
use kindred_store::records::embedded::EmbeddedRecords;

use crate::support::{ADDRESS, Memory, PASSWORD, World, config};

const DIR: &str = "KINDRED_TEST_DIR";
const NEW: &str = "vextro jumbles 93 quip";

async fn world(dir: &std::path::Path) -> World {
    let store = Arc::new(EmbeddedRecords::open(dir).unwrap());
    World::over(Arc::new(Memory::default()), store, config()).await
}

/// What the child does; by itself nothing.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let world = world(dir.as_ref()).await;
    let member = world.member("mara", "13812345678").await;
    let claims = world.claims(&world.sign_in("mara").await);
    world.members.change_password(&claims, &PASSWORD.into(), NEW.into(), true, ADDRESS).await.unwrap();
    world.deliver().await;
    world.members.erase_member(&world.admin(), &member).await.unwrap();
    world.deliver().await;
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_half_done() {
    let points = [
        "register.claimed",
        "register:pointed",
        "register:committed",
        "register.complete:committed",
        "activate:pointed",
        "activate:committed",
        "activate.complete:committed",
        "password.change:committed",
        "erase:pointed",
        "erase:committed",
        "erase:delivered",
        "outbox.performed#4",
    ];
    for point in points {
        let name = point.split('#').next().unwrap();
        assert!(points::names().any(|known| known == name), "{name} is listed");
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["killed::child", "--exact"]).env(DIR, dir.path()).env("KINDRED_FAIL_POINT", point);
        let output = child.output().unwrap();
        assert!(!output.status.success() && output.status.code().is_none(), "{point}: the child was to be killed");
        let world = world(dir.path()).await;
        world.pass(61);
        world.deliver().await;
        // The identifiers are the member's, or free after a day: never lost.
        let found = world.members.find(&world.admin(), "mara").await.unwrap();
        match found.filter(|profile| profile.state == kindred_members::State::Activated) {
            Some(profile) => {
                let old = world.members.sign_in(world.credentials("mara", PASSWORD)).await.is_ok();
                let new = world.members.sign_in(world.credentials("mara", NEW)).await.is_ok();
                assert!(old != new, "{point}: one password is good");
                world.members.erase_member(&world.admin(), &profile.member).await.unwrap();
                world.deliver().await;
            }
            None => world.pass(kindred_members::UNVERIFIED_S),
        }
        world.member("mara", "13812345678").await;
    }
}
