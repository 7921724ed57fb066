//! What goes on behind the answers: a receiver that hangs, and an audit log that many write at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kindred_members::senders::{Channel, Message};
use kindred_members::{AuditQuery, Language, MemberError, Sender};
use kindred_store::StoreError;
use kindred_store::records::Step;

use crate::support::{ADDRESS, Inbox, World, config};

/// Phones are reached; the mail host takes a connection and never answers.
struct DeadMail(Arc<Inbox>);

#[async_trait]
impl Sender for DeadMail {
    async fn send(&self, message: Message) -> Result<(), String> {
        if message.channel == Channel::Mail {
            std::future::pending::<()>().await;
        }
        self.0.send(message).await
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// If it failed, a mail host that hangs would keep everybody from registering, and every record of members from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_mail_host_holds_up_mails_alone() {
    let mut world = World::with(config()).await;
    let sender = Arc::new(DeadMail(world.inbox.clone()));
    world.members = world.open(&config(), sender).await.unwrap();
    let running = tokio::spawn({
        let members = world.members.clone();
        async move { members.run().await }
    });
    // More than there are places for mails.
    for n in 0..12 {
        let (name, phone) = (format!("person{n}"), format!("138123456{n:02}"));
        let solution = world.solution().await;
        world.registrations.request_phone_code(&phone, [None; 3], Language::En, &solution, ADDRESS).await.unwrap();
        let number = format!("+86{phone}");
        until("no code came to the phone", || world.inbox.last(&number).is_some()).await;
        let form = world.form_without_code(&name, &phone, &world.inbox.code(&number)).await.unwrap();
        world.registrations.register(form).await.unwrap();
        until("the log did not hear of a registration", || world.log.merged().len() == n + 1).await;
    }
    let mails = world.inbox.0.lock().iter().filter(|message| message.channel == Channel::Mail).count();
    assert_eq!(mails, 0);
    running.abort();
}

/// If it failed, all sign-ins of a day would wait for one partition, or a page of the log would leave entries out.
#[tokio::test]
async fn the_audit_log_is_spread_and_read_in_order() {
    let world = World::new().await;
    let admin = world.admin();
    for n in 0..1_300 {
        world.audit.record(&admin, "test.done", &format!("s{n}"), true, &[]).await.unwrap();
        world.clock.advance(Duration::from_millis(n % 3));
    }
    // One of an earlier version lies in the partition of the day.
    let entries = world.memory.table("audit", world.clock.now());
    let (_, id, value, _) = &entries[0];
    let mut old = value.clone();
    let old_id = format!("{}zz", &id[..id.len() - 2]);
    old["id"] = serde_json::json!(old_id);
    let step = Step::insert(old_id.as_bytes(), old.to_string().into_bytes(), None);
    world.store.transact("audit", b"2026-11-24", &[step], world.clock.now()).await.unwrap();

    let partitions: std::collections::BTreeSet<&String> = entries.iter().map(|(partition, ..)| partition).collect();
    assert!(partitions.len() > 4, "{partitions:?}");
    let mut wanted: Vec<String> = entries.iter().map(|(_, id, ..)| id.clone()).chain([old_id]).collect();
    wanted.sort_unstable_by(|one, other| other.cmp(one));
    let query = AuditQuery { limit: Some(200), ..AuditQuery::default() };
    let found: Vec<String> = world.audited(query).await.into_iter().map(|entry| entry.id).collect();
    assert_eq!(found.len(), wanted.len());
    assert!(found == wanted, "another order");
}

/// If it failed, clients would go on asking a server whose disk is full, or whose records are damaged.
#[test]
fn what_trying_again_does_not_help_is_not_told_as_unavailable() {
    let of = |error: StoreError| MemberError::from(error).code();
    assert_eq!(of(StoreError::Unavailable("away".into())), "store_unavailable");
    assert_eq!(of(StoreError::Full("disk".into())), "store_full");
    assert_eq!(of(StoreError::Corrupt("a byte".into())), "internal");
    assert_eq!(of(StoreError::Refused("68 steps".into())), "internal");
}
