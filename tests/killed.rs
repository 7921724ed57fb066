//! Kill -9 at one write of each port: the records, the log, the views. `api/members/tests/it/faults.rs` dies at every single write, in
//! memory; here a process with real stores dies during a registration, and another one goes on.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;

use crate::members::Shop;
use crate::people::{text_of, token_in, wait_for};
use crate::place::{Backend, on_both_back_ends};
use crate::support::{PATIENCE, Points, until, until_so};

/// The account is written; the log has its record; the views are about to have it.
const STEPS: [&str; 3] = ["records: accounts#1", "log: members#1", "thread: sink#1"];
/// A member's points for an invited member, by the default rules.
const POINTS_OF_AN_INVITE: i64 = 100;

/// If it failed, a dying process would leave a half registered member, or lose or double an event.
fn v2_3_3_kill_9_at_a_write_of_each_port(backend: Backend) {
    if !cfg!(debug_assertions) {
        eprintln!("NOT RUN: a release build has no fail points");
        return;
    }
    let Some(mut shop) = Shop::closed(backend, "killed", &[]) else { return };
    let points = Points::new(shop.place.temp());
    let start = |shop: &mut Shop| shop.apis = vec![shop.place.start_with(|| points.command(), &[])];
    start(&mut shop);
    let inviter = shop.member(0, "inviter", "13800000009");
    let own = shop.api(0).send("GET", "/v1/members/me", Some(text_of(&inviter, "access_token")), None).json();
    let mut people = vec!["inviter".to_owned()];
    for (n, step) in STEPS.into_iter().enumerate() {
        let (name, phone) = (format!("person{n}"), format!("1380000000{n}"));
        let code = shop.phone_code(0, &phone);
        let form = |shop: &Shop| {
            let mut form = shop.form(0, &name, &phone, &code);
            form["invite_code"] = own["invite_code"].clone();
            form
        };
        let first = form(&shop);
        points.arm(&format!("kill {step}"));
        let answer = shop.api(0).try_send("POST", "/v1/registrations", None, Some(&first));
        let mut dying = shop.apis.remove(0);
        let what = || format!("it lives through {step}: {:?}", points.trace());
        let ended = until(PATIENCE, what, || dying.ended_any());
        assert_eq!(ended.signal(), Some(9), "{step}: {}", dying.log());
        drop(dying);
        points.disarm();
        start(&mut shop);
        if answer.is_err() {
            // As a person does whose answer got lost: the code may be used up, by themselves.
            let again = shop.api(0).send("POST", "/v1/registrations", None, Some(&form(&shop)));
            assert!([202, 422].contains(&again.status), "{step}: {}", again.body);
        }
        let token = wait_for(&shop.mails, &format!("{name}@example.com"), token_in);
        let verified = shop.api(0).send("POST", "/v1/email-verifications", None, Some(&json!({ "token": token })));
        assert_eq!(verified.status, 200, "{step}: {}", verified.body);
        assert_eq!(text_of(&shop.sign_in(0, &name), "member"), text_of(&shop.sign_in(0, &phone), "member"), "{step}");
        people.push(name);
    }
    let api = shop.api(0);
    // The index and the views follow.
    let found = || {
        let found = api.get_json("/v1/admin/members?limit=200&state=activated");
        let mut names: Vec<String> =
            found["members"].as_array().expect("members").iter().map(|of| text_of(of, "username").to_owned()).collect();
        names.sort();
        names
    };
    until_so(|| format!("not all are members once: {:?}", found()), || found() == people);
    let points = || api.get_json(&format!("/v1/members/{}/points", text_of(&inviter, "member")))["from_invites"].as_i64();
    let earned = POINTS_OF_AN_INVITE * STEPS.len() as i64;
    until_so(|| format!("registrations count {:?}, not {earned}", points()), || points() == Some(earned));
    shop.apis.remove(0).stop();
    shop.place.ok(&["verify"]);
}
on_both_back_ends!(v2_3_3_kill_9_at_a_write_of_each_port);
