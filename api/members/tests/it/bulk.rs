//! Members written for a measurement are held against one who registered.

use kindred_members::{MemberQuery, NewMember};
use kindred_model::units::EventTime;
use serde_json::Value;

use crate::support::World;

/// What sign-in and search read.
const READ: [&str; 3] = ["accounts", "claims", "member_index"];

/// Everything in those tables, with ids and invite codes by name, since they are drawn; when a member was activated, too.
fn told(world: &World) -> Vec<String> {
    let accounts = world.memory.table("accounts", world.clock.now());
    let (_, _, account, _) = accounts.iter().find(|(_, sort, ..)| sort == "account").expect("an account");
    let text = |field: &str| account[field].as_str().unwrap().to_owned();
    let (member, invite) = (text("member"), text("invite_code"));
    let mut lines = Vec::new();
    for table in READ {
        for (partition, sort, mut value, expires_at) in world.memory.table(table, world.clock.now()) {
            if let Some(activated_at) = value.get_mut("activated_at") {
                assert!(activated_at.is_i64());
                *activated_at = Value::from("then");
            }
            let line = format!("{table} {partition} {sort} {value} {expires_at:?}");
            lines.push(line.replace(&member, "MEMBER").replace(&invite, "INVITE"));
        }
    }
    lines.sort();
    lines
}

/// If it failed, a measurement with a million members would be one of something else than members.
#[tokio::test]
async fn a_member_written_for_a_measurement_is_as_one_who_registered() {
    let registered = World::new().await;
    registered.member("Mara", "13812345678").await;
    let accounts = registered.memory.table("accounts", registered.clock.now());
    let account = &accounts.iter().find(|(_, sort, ..)| sort == "account").unwrap().2;
    let member = NewMember {
        username: "Mara".into(),
        phone: "13812345678".into(),
        email: "Mara@example.com".into(),
        password_hash: account["password"].as_str().unwrap().into(),
        password_for_staff: account["password_for_staff"].as_bool().unwrap(),
        registered_at: EventTime(account["registered_at"].as_i64().unwrap()),
    };
    let written = World::new().await;
    let ids = written.members.write_for_measurement(std::slice::from_ref(&member)).await.unwrap();
    assert_eq!(told(&written), told(&registered));
    assert!(written.memory.table("outbox", written.clock.now()).is_empty() && written.log.0.lock().is_empty());

    assert_eq!(written.sign_in("mara").await.member, ids[0]);
    let found = written.members.staff.search_members(&written.admin(), &MemberQuery::default()).await.unwrap();
    assert_eq!(found.items[0].member, ids[0]);
    assert!(written.members.write_for_measurement(&[member]).await.is_err(), "the name is taken");
}

/// More than one transaction of an index partition holds.
#[tokio::test]
async fn many_are_written_at_once() {
    let world = World::new().await;
    let member = |number: u32| NewMember {
        username: format!("m{number:04}"),
        phone: format!("138{number:08}"),
        email: format!("m{number}@example.com"),
        password_hash: String::new(),
        password_for_staff: false,
        registered_at: EventTime(world.clock.now().0 - i64::from(number)),
    };
    let ids = world.members.write_for_measurement(&(0..150).map(member).collect::<Vec<_>>()).await.unwrap();
    let found = world.staff.members_page(&world.admin(), &MemberQuery { limit: Some(150), ..Default::default() }, 1).await;
    assert_eq!(found.unwrap().into_iter().map(|member| member.member).collect::<Vec<_>>(), ids, "the newest first");
}
