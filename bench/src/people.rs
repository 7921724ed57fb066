//! Members of a synthetic shop, deterministic in any number, and a directory that has them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_members::senders::Message;
use kindred_members::{EventSink, Hashes, Members, MembersConfig, NewMember, PasswordConfig, Sender};
use kindred_model::records::MemberRecord;
use kindred_model::units::EventTime;
use kindred_store::records::RecordStore;
use kindred_store::records::embedded::EmbeddedRecords;

use crate::progress;

/// Everybody's password.
pub const PASSWORD: &str = "qzvw kxjp 71 umbra";
/// The folder of records in a data directory.
const RECORDS: &str = "records";
/// Members per write: the granularity of progress, and the memory.
const WRITTEN_AT_ONCE: u32 = 5_000;
/// First letters of usernames and e-mails, and as many phone prefixes: with a thousand members each has a full page.
const LETTERS: &[u8; 16] = b"abcdefghijklmnop";
/// Registrations are spread evenly over this time until now.
const REGISTERED_OVER_MS: i64 = 365 * 86_400_000;

/// Eight digits, a permutation of the numbers below 10^8: index order is not registration order.
fn digits(number: u32) -> u64 {
    u64::from(number) * 73_939_133 % 100_000_000
}

/// The username of a member.
pub fn username(number: u32) -> String {
    format!("{}{:08}", char::from(LETTERS[number as usize % LETTERS.len()]), digits(number))
}

/// The e-mail address.
pub fn email(number: u32) -> String {
    format!("{}@example.com", username(number))
}

/// The phone: a Chinese mobile number.
pub fn phone(number: u32) -> String {
    format!("{}{:08}", 130 + number as usize % LETTERS.len(), digits(number))
}

/// Argon2 with the memory and passes of the settings.
///
/// # Errors
/// When argon2 rejects them.
pub fn argon(config: &PasswordConfig) -> Result<Argon2<'static>> {
    let params = Params::new(config.memory_kib, config.passes, 1, None);
    let params = params.map_err(|error| anyhow::anyhow!("argon2 does not take the settings: {error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The PHC string of [`PASSWORD`].
///
/// # Errors
/// When it cannot be hashed.
pub fn hash(config: &PasswordConfig) -> Result<String> {
    let hash = argon(config)?.hash_password(PASSWORD.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("could not hash a password: {error}"))?.to_string())
}

/// Discards everything: the measurement writes no log and sends nothing.
pub struct Nowhere;

#[async_trait]
impl EventSink for Nowhere {
    async fn append(&self, _: MemberRecord) -> Result<(), String> {
        Err("a measurement has no log".to_owned())
    }
}

#[async_trait]
impl Sender for Nowhere {
    async fn send(&self, _: Message) -> Result<(), String> {
        Err("a measurement sends nothing".to_owned())
    }
}

/// Opens members on records; with `weak` password hashes where many are checked.
///
/// # Errors
/// Those of the members service.
pub async fn open(records: Arc<dyn RecordStore>, config: MembersConfig, weak: bool) -> Result<Members> {
    let (clock, sink, sender) = (Clock::system(), Arc::new(Nowhere), Arc::new(Nowhere));
    let hashes = if weak { Hashes::WeakForTests } else { Hashes::Strong };
    Members::open(records, clock, config, sink, sender, hashes).await.context("could not open the members")
}

/// Writes `count` members with the product's hash into a data directory that nobody has open.
///
/// # Errors
/// Those of the store and of the members service.
pub async fn fill(data: &Path, count: u32) -> Result<()> {
    let records = EmbeddedRecords::open(&data.join(RECORDS)).context("could not open the records")?;
    let members = open(Arc::new(records), MembersConfig::default(), true).await?;
    write(&members, 0..count, count, &hash(&PasswordConfig::default())?).await
}

/// Writes the members of `numbers` out of `of`, each with the password of `hash`.
///
/// # Errors
/// Those of the members service: some may exist already.
pub async fn write(members: &Members, numbers: Range<u32>, of: u32, hash: &str) -> Result<()> {
    let bar = progress::bar("writing members", u64::from(numbers.end - numbers.start));
    bar.tick();
    let now = Clock::system().now().0;
    let registered_at = |number: u32| EventTime(now - REGISTERED_OVER_MS / i64::from(of.max(1)) * i64::from(of - number));
    for first in numbers.clone().step_by(WRITTEN_AT_ONCE as usize) {
        let some = first..numbers.end.min(first.saturating_add(WRITTEN_AT_ONCE));
        let new = some.clone().map(|number| NewMember {
            username: username(number),
            phone: phone(number),
            email: email(number),
            password_hash: hash.to_owned(),
            password_for_staff: true,
            registered_at: registered_at(number),
        });
        members.write_for_measurement(&new.collect::<Vec<_>>()).await.context("could not write members")?;
        bar.inc(u64::from(some.end - some.start));
    }
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kindred_members::{Identifier, Kind};
    use kindred_model::Day;

    use super::*;

    /// Two members with one name would end a measurement after minutes.
    #[test]
    fn every_number_is_somebody_else_and_acceptable() {
        let regions = ["CN".to_owned()];
        let mut known = BTreeSet::new();
        for number in (0..100_000).chain(999_000..1_001_000) {
            assert!(known.insert(username(number)), "{number}");
        }
        for number in (0..1_000_000).step_by(997) {
            assert!(Identifier::username(&username(number), "").is_ok() && Identifier::email(&email(number)).is_ok());
            assert_eq!(Identifier::phone(&phone(number), &regions).unwrap().kind, Kind::Phone);
        }
    }

    #[tokio::test]
    async fn a_directory_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(EmbeddedRecords::open(folder.path()).unwrap());
        let members = open(records, MembersConfig::default(), true).await.unwrap();
        write(&members, 0..40, 40, "none").await.unwrap();
        let query = kindred_members::MemberQuery { prefix: Some((Kind::Phone, phone(17))), ..Default::default() };
        let found = members.staff.search_members(&kindred_members::Actor::operator("test"), &query).await.unwrap();
        assert_eq!(found.items.len(), 1);
        assert_eq!(found.items[0].email, email(17));
        let today = Clock::system().today();
        let days = Some((Day(today.0 - 366), today));
        let all = kindred_members::MemberQuery { registered: days, ..Default::default() };
        assert_eq!(members.staff.search_members(&kindred_members::Actor::operator("test"), &all).await.unwrap().items.len(), 40);
        assert!(hash(&PasswordConfig::default()).unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }
}
