//! What resources keep of members leaves with them, and is given out to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use kindred_members::{Job, MemberError, Members, Resource, Result};
use kindred_store::records::Step;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{ADDRESS, World};

const TABLE: &str = "notes";
/// Where the store does not answer for a while.
static IS_AWAY: AtomicBool = AtomicBool::new(false);

/// One note a member.
struct Notes;

#[async_trait]
impl Resource for Notes {
    fn name(&self) -> &'static str {
        TABLE
    }

    async fn erase(&self, members: &Members, member: &str) -> Result<()> {
        if IS_AWAY.load(Ordering::Relaxed) {
            return Err(MemberError::Store("it is away".into()));
        }
        members.records().remove(TABLE, member, "note").await
    }

    async fn export(&self, members: &Members, member: &str) -> Result<Value> {
        let held = members.records().read::<String>(TABLE, member, "note").await?;
        Ok(json!({ "note": held.map(|held| held.value) }))
    }
}

/// If it failed, what a part of the product keeps of a person would outlive their erasure: the rest of an erasure that met a store that
/// was away, or what a request wrote that had begun before.
#[tokio::test]
async fn what_a_resource_keeps_leaves_with_the_member() {
    let world = World::new().await;
    let member = world.member("mara", "13800138000").await;
    let members = Arc::into_inner(world.another().await.members).expect("no other holds it").with_resources(vec![&Notes]);
    let world = World { members: Arc::new(members), ..world };
    let records = world.members.records();
    let note = async || records.read::<String>(TABLE, &member, "note").await.unwrap().map(|held| held.value);
    let write = async || assert!(records.insert(TABLE, &member, "note", &"likes tea", None).await.unwrap());
    write().await;
    let exported = serde_json::to_value(world.members.export(&member).await.unwrap()).unwrap();
    assert_eq!(exported["resources"][TABLE], json!({ "note": "likes tea" }));

    IS_AWAY.store(true, Ordering::Relaxed);
    world.members.erase_member(&world.admin(), &member).await.unwrap();
    assert!(world.members.sweep().await.unwrap() > 0, "what could not be erased waits");
    assert_eq!(note().await.as_deref(), Some("likes tea"));
    IS_AWAY.store(false, Ordering::Relaxed);
    world.pass(5);
    world.members.sweep().await.unwrap();
    assert_eq!(note().await, None);
    // A request that had begun before writes late.
    write().await;
    world.deliver().await;
    assert_eq!(note().await, None);
    assert_eq!(world.profiles.of(&member).await, Err(MemberError::NotFound));
    assert!(world.challenges.draw(ADDRESS).await.is_ok());
}

/// Whose first two jobs fail.
#[derive(Default)]
struct Orders {
    begun: AtomicU32,
    done: Mutex<Vec<String>>,
}

#[async_trait]
impl Resource for Orders {
    fn name(&self) -> &'static str {
        "orders"
    }

    async fn erase(&self, _: &Members, _: &str) -> Result<()> {
        Ok(())
    }

    async fn export(&self, _: &Members, _: &str) -> Result<Value> {
        Ok(Value::Null)
    }

    async fn perform(&self, _: &Members, partition: &str, job: &str, payload: &Value) -> Result<()> {
        if self.begun.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(MemberError::Store("it is away".into()));
        }
        self.done.lock().push(format!("{job} {partition} {payload}"));
        Ok(())
    }
}

/// If it failed, what follows from an order would be lost, come too early, or come again and again.
#[tokio::test]
async fn a_job_is_done_until_it_has_succeeded() {
    let world = World::new().await;
    let orders: &'static Orders = Box::leak(Box::default());
    let members = Arc::into_inner(world.another().await.members).expect("no other holds it").with_resources(vec![orders, &Notes]);
    let job = |job: &str, s| Job {
        resource: "orders".into(),
        job: job.into(),
        payload: json!({ "cents": 100 }),
        not_before: Some(members.records().in_s(s)),
    };
    let order = || vec![Step::insert("order", b"{}".to_vec(), None)];
    assert!(members.transact("orders", "o1", order(), vec![job("pay", 0), job("remind", 3_600)]).await.unwrap());
    assert!(!members.transact("orders", "o1", order(), vec![job("pay", 0)]).await.unwrap(), "the order is there already");

    assert_eq!(world.sweep().await.unwrap(), 1, "it waits for a version that knows the resource");
    for _ in 0..5 {
        world.pass(10);
        assert_eq!(members.sweep().await.unwrap(), 1);
    }
    assert_eq!(orders.begun.load(Ordering::Relaxed), 3);
    assert_eq!(*orders.done.lock(), [r#"pay o1 {"cents":100}"#]);
    world.pass(3_600);
    assert_eq!(members.sweep().await.unwrap() + members.sweep().await.unwrap(), 0);
    assert_eq!(orders.done.lock()[1..], [r#"remind o1 {"cents":100}"#]);
    assert!(
        matches!(Notes.perform(&members, "o1", "pay", &Value::Null).await, Err(MemberError::Internal(_))),
        "no job of theirs"
    );
}
