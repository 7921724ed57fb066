//! The encoding of keys and rows. If the key order failed, exports would be unsorted; if a round trip did, a restart would read
//! other rows than were written. Damaged bytes are the fuzz targets' (`fuzz_smoke.rs`).

use std::cmp::Reverse;

use kindred_model::codec::{Corrupt, KeyCodec, RowCodec, put_signed, put_varint, take_signed, take_varint};
use kindred_model::loyalty::Lot;
use kindred_model::records::InteractionKey;
use kindred_model::views::also_bought::{Neighbors, baskets_key};
use kindred_model::views::inputs::{Canonical, StoredInteraction};
use kindred_model::views::points::{Difference, Earned};
use kindred_model::{Day, EventTime, ItemId, Kind, Owner, SessionId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generators::{any_owner, day, interaction_key, item, kind, owner, time};

fn orders_as_its_bytes<K: KeyCodec>(a: &K, b: &K) {
    assert_eq!(a.cmp(b), a.to_bytes().cmp(&b.to_bytes()), "{a:?} {b:?}");
    assert_eq!(&K::from_bytes(&a.to_bytes()).unwrap(), a);
}

fn reads_back<R: RowCodec>(row: &R) {
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    assert_eq!(&R::decode(&bytes).unwrap(), row);
}

proptest! {
    #[test]
    fn keys_of_interactions_order_as_their_bytes(
        owners in (any_owner(), any_owner()), keys in (interaction_key(), interaction_key()),
    ) {
        orders_as_its_bytes(&keys.0, &keys.1);
        orders_as_its_bytes(&(owners.0, keys.0), &(owners.1, keys.1));
    }

    #[test]
    fn keys_order_as_their_bytes(
        items in (item(), item()), owners in (any_owner(), any_owner()), kinds in (kind(), kind()), days in (day(), day()),
        any_days in (any::<i32>(), any::<i32>()), times in (any::<i64>(), any::<i64>()),
    ) {
        orders_as_its_bytes(&items.0, &items.1);
        orders_as_its_bytes(&owners.0, &owners.1);
        orders_as_its_bytes(&kinds.0, &kinds.1);
        orders_as_its_bytes(&Day(any_days.0), &Day(any_days.1));
        orders_as_its_bytes(&(items.0.clone(), kinds.0, days.0), &(items.1.clone(), kinds.1, days.1));
        orders_as_its_bytes(&(items.0.clone(), days.1, kinds.1), &(items.0.clone(), days.0, kinds.0));
        orders_as_its_bytes(&(owners.0, items.0.clone()), &(owners.1, items.1));
        orders_as_its_bytes(&baskets_key(), &items.0);
        orders_as_its_bytes(&Reverse(EventTime(times.0)), &Reverse(EventTime(times.1)));
    }

    /// If this failed, a prefix scan would miss keys of an owner, or return another's.
    #[test]
    fn an_owner_is_a_prefix_of_its_keys_alone(a in owner(), b in owner(), key in interaction_key()) {
        let of_b = (b.clone(), key).to_bytes();
        prop_assert_eq!(of_b.starts_with(&a.to_bytes()), a == b);
    }

    /// If this failed, keys would not sort by the kind's word, as exports do.
    #[test]
    fn kinds_order_as_their_words(a in kind(), b in kind()) {
        prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.name().cmp(b.name()));
    }

    /// If this failed, the cap would evict a retract before what it hides.
    #[test]
    fn a_retract_orders_after_every_day(key in interaction_key(), day in day()) {
        let scenario: Box<str> = if matches!(key.kind, Kind::Click | Kind::Impression) { "home".into() } else { Box::default() };
        let dated = InteractionKey { day: Some(day), scenario, ..key.clone() };
        let retract = InteractionKey { day: None, scenario: Box::default(), ..key };
        prop_assert!(dated < retract && dated.to_bytes() < retract.to_bytes());
    }

    #[test]
    fn rows_read_back(
        time in time(), count: u64, payload in vec(any::<u8>(), 0..20), neighbors in vec((item(), any::<u64>()), 0..5),
        lots in vec((day(), day(), proptest::option::of(day()), any::<i64>(), any::<i64>(), any::<i64>()), 0..4),
    ) {
        reads_back(&time);
        reads_back(&count);
        reads_back(&());
        reads_back(&StoredInteraction { at: time, payload: payload.clone().into() });
        reads_back(&Canonical(payload.into()));
        reads_back(&Neighbors(neighbors));
        let of = |(known_from, available_from, expires_on, points, level_points, from_invites)| {
            let lot = Lot { known_from, available_from, expires_on };
            Difference { lot, points, level_points, from_invites }
        };
        reads_back(&Earned { differences: lots.into_iter().map(of).collect() });
    }

    #[test]
    fn numbers_read_back_from_within_others(unsigned: u64, signed: i64, rest in vec(any::<u8>(), 0..3)) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, unsigned);
        put_signed(&mut bytes, signed);
        bytes.extend(&rest);
        let mut reader = &bytes[..];
        prop_assert_eq!(take_varint(&mut reader), Ok(unsigned));
        prop_assert_eq!(take_signed(&mut reader), Ok(signed));
        prop_assert_eq!(reader, &rest[..]);
    }
}

/// A past bug: rows with trailing bytes, and numbers beyond 64 bits, were accepted.
#[test]
fn rows_and_numbers_are_read_whole() {
    assert_eq!(u64::decode(&[5, 0]), Err(Corrupt("a row with bytes left over")));
    assert_eq!(EventTime::decode(&[2, 9]), Err(Corrupt("a row with bytes left over")));
    let mut too_great = [0xff; 10];
    too_great[9] = 0x02;
    assert!(take_varint(&mut &too_great[..]).is_err());
    too_great[9] = 0x01;
    assert_eq!(take_varint(&mut &too_great[..]), Ok(u64::MAX));
    let mut bytes = Vec::new();
    put_signed(&mut bytes, i64::MAX);
    assert_eq!(EventTime::decode(&bytes), Err(Corrupt("a time out of range")));
}

/// If this failed, format 1 keys would be migrated to another meaning, or today's keys be taken for them.
#[test]
fn keys_of_format_1_are_brought_to_today() {
    use kindred_model::codec::interaction_key_of_format_1;
    use kindred_model::records::{SCENARIO, Subject};
    let owner = Owner::Session(SessionId::trusted("s"));
    let kinds = ["cart", "click", "comment", "favorite", "follow", "impression", "purchase", "search", "view"]
        .map(|name| name.parse::<Kind>().unwrap());
    for (code, kind) in (1u8..).zip(kinds) {
        for day in [Some(Day(20_458)), None] {
            let is_search = kind == Kind::Search;
            let subject = if is_search { Subject::Query("red tea".into()) } else { Subject::Item(ItemId::trusted("tea")) };
            let mut old = owner.to_bytes();
            old.push(if is_search { 2 } else { 1 });
            old.extend_from_slice(if is_search { b"red tea\0" } else { b"tea\0" });
            old.push(code);
            match day {
                Some(day) => day.encode(&mut old),
                None => old.extend_from_slice(&[0xff; 4]),
            }
            let scenario = if kind.is_of_a_list() && day.is_some() { SCENARIO } else { "" };
            let key = InteractionKey { subject, kind, day, scenario: scenario.into() };
            let today = (owner.clone(), key).to_bytes();
            assert_eq!(interaction_key_of_format_1(&old), Ok(Some(today.clone())), "{kind}");
            assert_eq!(interaction_key_of_format_1(&today), Ok(None), "{kind}");
            assert!(<(Owner, InteractionKey)>::from_bytes(&old).is_err(), "{kind}");
        }
    }
}
