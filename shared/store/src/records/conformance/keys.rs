//! What holds of the API's keys in every store of records.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kindred_model::EventTime;

use super::Handle;
use crate::keys::{End, Grant, KeyError, KeyStore, OVERLAP_MAX, Scope};
use crate::records::Range;

const KEYS_AT: EventTime = EventTime(1_767_600_000_000);

fn later(seconds: i64) -> EventTime {
    EventTime(KEYS_AT.0 + seconds * 1_000)
}

async fn keys_of(store: &Handle) -> KeyStore {
    KeyStore::open(Arc::clone(store)).await.expect("the keys read")
}

async fn a_key_is_replaced_with_an_overlap(one: &Handle, other: &Handle) {
    let (here, there) = (keys_of(one).await, keys_of(other).await);
    let origins = ["https://shop.example".to_owned()];
    let old = here.create_publishable("pages", &origins, &[Scope::ListsRead], 60, KEYS_AT).await.expect("made");
    let kept = here.create_service("shop server", KEYS_AT).await.expect("made");
    let version = here.version();
    let successor = here.draw_successor(&old.key.id).expect("drawn");
    let drawn = successor.id();
    let rotated = here.rotate(successor, later(60), Duration::from_secs(600)).await.expect("rotated");
    assert_ne!(here.version(), version, "what was verified has to be looked at again");
    let new = &rotated.made;
    assert_eq!((new.key.id.as_str(), rotated.replaces.as_str()), (drawn.as_str(), old.key.id.as_str()));
    assert_eq!((new.key.name.as_str(), new.key.created_at, new.key.end.clone()), ("pages", later(60), None));
    let Grant::Publishable { token, origins: theirs, scopes, rate_limit_per_minute } = &new.key.grant else {
        panic!("it is of the same kind");
    };
    assert_eq!((token, theirs.as_slice(), scopes.as_slice()), (&new.token, origins.as_slice(), [Scope::ListsRead].as_slice()));
    assert_eq!(*rate_limit_per_minute, 60);

    there.refresh().await.expect("read");
    let end = End { expires_at: later(660), replaced_by: new.key.id.clone() };
    for keys in [&here, &there, &keys_of(one).await] {
        let ending = keys.list().into_iter().find(|key| key.id == old.key.id).expect("it is listed");
        assert_eq!(ending.end, Some(end.clone()));
        let good = |token: &str, at| keys.verify(token, at).is_some();
        // Without reading again: the clock alone ends it.
        for (at, both) in [(later(60), true), (EventTime(later(660).0 - 1), true), (later(660), false), (later(9_999), false)] {
            assert_eq!((good(&old.token, at), keys.is_good(&old.key.id, at)), (both, both), "at {at}");
            assert!(good(&new.token, at) && good(&kept.token, at), "at {at}");
        }
    }
    assert!(matches!(there.draw_successor(&old.key.id), Err(KeyError::Replaced(by)) if by == new.key.id));

    assert_eq!(there.sweep(later(659)).await.expect("swept"), 0);
    assert_eq!(there.sweep(later(660)).await.expect("swept"), 1);
    here.refresh().await.expect("read");
    for keys in [&here, &there] {
        assert!(keys.list().iter().all(|key| key.id != old.key.id) && keys.list().len() == 2);
        assert_eq!(keys.verify(&old.token, KEYS_AT), None, "what was deleted is good at no time");
    }
    // A successor is replaced as any other, at once where there is no overlap.
    let successor = here.draw_successor(&kept.key.id).expect("drawn");
    let last = here.rotate(successor, later(700), Duration::ZERO).await.expect("rotated").made;
    assert!(here.verify(&kept.token, later(700)).is_none() && here.verify(&last.token, later(700)).is_some());
    for id in [&new.key.id, &kept.key.id, &last.key.id] {
        assert!(here.revoke(id).await.expect("revoked"));
    }
}

async fn a_key_that_is_not_there_is_not_replaced(one: &Handle, other: &Handle) {
    let here = keys_of(one).await;
    assert!(matches!(here.draw_successor("000000000000"), Err(KeyError::Unknown(_))));
    let (first, second) =
        (here.create_service("a", KEYS_AT).await.expect("made"), here.create_service("b", KEYS_AT).await.expect("made"));
    let there = keys_of(other).await;
    let overlap = Duration::from_secs(60);
    let draw = |keys: &KeyStore, id: &str| keys.draw_successor(id).expect("drawn");
    let too_long = here.rotate(draw(&here, &first.key.id), KEYS_AT, OVERLAP_MAX + Duration::from_secs(1)).await;
    assert!(matches!(too_long, Err(KeyError::Invalid(invalid)) if invalid.field == "overlap_seconds"));
    // The other process has not read since; it looks before it does anything, and nothing comes back.
    let (late, later) = (draw(&there, &first.key.id), draw(&there, &second.key.id));
    let rotated = here.rotate(draw(&here, &first.key.id), KEYS_AT, overlap).await.expect("rotated");
    assert!(here.revoke(&second.key.id).await.expect("revoked"));
    let by = rotated.made.key.id.clone();
    assert!(matches!(there.rotate(late, KEYS_AT, overlap).await, Err(KeyError::Replaced(id)) if id == by));
    assert!(matches!(there.rotate(later, KEYS_AT, overlap).await, Err(KeyError::Unknown(id)) if id == second.key.id));
    there.refresh().await.expect("read");
    assert_eq!(there.list().len(), 2, "no successor was left behind");
    assert_eq!(there.verify(&second.token, KEYS_AT), None);
    for id in [&first.key.id, &by] {
        assert!(there.revoke(id).await.expect("revoked"));
    }
}

async fn a_last_use_never_moves_back(one: &Handle, other: &Handle) {
    let here = keys_of(one).await;
    let key = here.create_service("shop server", KEYS_AT).await.expect("made").key;
    let there = keys_of(other).await;
    let last = |keys: &KeyStore| keys.last_use(&key.id).and_then(|used| used.at());
    let note = |keys: &KeyStore, at| keys.last_use(&key.id).expect("it is there").note(at);
    let stored = async || last(&keys_of(one).await);
    assert_eq!((last(&here), stored().await), (None, None), "it was never used");
    here.save_uses().await.expect("there is nothing to write");
    assert_eq!(stored().await, None);

    note(&here, later(605));
    note(&here, later(30));
    assert_eq!((last(&here), stored().await), (Some(later(600)), None), "to the minute, and in memory alone");
    let version = (here.version(), there.version());
    note(&there, later(60));
    here.save_uses().await.expect("written");
    there.save_uses().await.expect("written");
    assert_eq!(stored().await, Some(later(600)), "the later one stands, whoever writes last");
    there.refresh().await.expect("read");
    assert_eq!(last(&there), Some(later(600)));
    // Whoever remembered the key from before goes on noting at the right place.
    let remembered = there.last_use(&key.id).expect("it is there");
    there.refresh().await.expect("read");
    remembered.note(later(1_200));
    there.save_uses().await.expect("written");
    here.refresh().await.expect("read");
    assert_eq!((last(&here), last(&there), stored().await), (Some(later(1_200)), Some(later(1_200)), Some(later(1_200))));
    assert_eq!((here.version(), there.version()), version, "a use is no change: what was verified stays remembered");
    assert!(here.revoke(&key.id).await.expect("revoked"));
    assert!(here.last_use(&key.id).is_none());
}

/// If it failed, two administrators who rotate a key at once would both hold a successor, of which the key names one.
async fn of_rotations_at_once_one_wins(one: &Handle, other: &Handle) {
    let here = keys_of(one).await;
    let old = here.create_service("shop server", KEYS_AT).await.expect("made");
    let there = keys_of(other).await;
    let rotated = (0..32).map(async |n| {
        let keys = if n % 2 == 0 { &here } else { &there };
        keys.rotate(keys.draw_successor(&old.key.id)?, KEYS_AT, Duration::from_secs(60)).await
    });
    let rotated = join_all(rotated).await;
    let won: Vec<&str> = rotated.iter().flatten().map(|rotated| rotated.made.key.id.as_str()).collect();
    assert_eq!(won.len(), 1, "{rotated:?}");
    assert!(rotated.iter().filter_map(|rotated| rotated.as_ref().err()).all(|error| matches!(error, KeyError::Replaced(_))));
    let keys = keys_of(one).await;
    assert_eq!(keys.list().len(), 2, "no successor was left behind");
    for id in [won[0], &old.key.id] {
        assert!(keys.revoke(id).await.expect("revoked"));
    }
}

pub(super) async fn run(one: &Handle, other: &Handle) {
    a_key_is_replaced_with_an_overlap(one, other).await;
    a_key_that_is_not_there_is_not_replaced(one, other).await;
    a_last_use_never_moves_back(one, other).await;
    of_rotations_at_once_one_wins(one, other).await;
    let left = one.scan("keys", b"all", &Range::default(), 10, KEYS_AT).await.expect("read");
    assert!(left.is_empty(), "what lies beside a key goes with it: {left:?}");
}
