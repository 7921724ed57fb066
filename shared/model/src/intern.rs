//! Interned identities: a `u32` in place of a string, for what the dataflow holds by the million.
//!
//! Numbers are private to a process (docs/ARCHITECTURE.md, rule 4): nothing is ordered by them, stored under them, or sent to another process
//! with them. Hence [`Item`] and [`Party`] have no meaningful order, and serialise as strings, which the receiving process
//! interns again.
//!
//! The table only grows while the process lives: an identity costs its bytes once, and some 40 bytes of index.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::OnceLock;

use parking_lot::RwLock;
use rustc_hash::FxHasher;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ItemId, MemberId, OrderId, Owner, SessionId};

/// Bucket b holds 2^b strings, so strings never move and are read without a lock.
const BUCKETS: usize = 32;

/// A table of texts and their numbers.
pub struct Interner {
    numbers: RwLock<HashMap<&'static str, u32, BuildHasherDefault<FxHasher>>>,
    buckets: [OnceLock<Box<[OnceLock<&'static str>]>>; BUCKETS],
}

impl Interner {
    /// An empty table.
    pub const fn empty() -> Self {
        let numbers = RwLock::new(HashMap::with_hasher(BuildHasherDefault::new()));
        Self { numbers, buckets: [const { OnceLock::new() }; BUCKETS] }
    }

    fn place(number: u32) -> (usize, usize) {
        let n = u64::from(number) + 1;
        let bucket = n.ilog2();
        (bucket as usize, (n - (1 << bucket)) as usize)
    }

    fn find(&self, text: &str) -> Option<u32> {
        self.numbers.read().get(text).copied()
    }

    /// The number of a text, assigned if it is new.
    pub fn intern(&self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            return number;
        }
        let mut numbers = self.numbers.write();
        if let Some(&number) = numbers.get(text) {
            return number;
        }
        let number = u32::try_from(numbers.len()).expect("fewer than 2^32 identities a process");
        let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
        let (bucket, slot) = Self::place(number);
        let bucket = self.buckets[bucket].get_or_init(|| (0..1usize << bucket).map(|_| OnceLock::new()).collect());
        bucket[slot].set(text).expect("a new number has an empty slot");
        numbers.insert(text, number);
        number
    }

    /// The text of a number that [`Self::intern`] gave.
    pub fn text(&self, number: u32) -> &'static str {
        let (bucket, slot) = Self::place(number);
        self.buckets[bucket].get().and_then(|bucket| bucket[slot].get()).expect("an interned number has a text")
    }

    fn len(&self) -> usize {
        self.numbers.read().len()
    }
}

macro_rules! interned {
    ($(#[$doc:meta])* $Name:ident in $TABLE:ident) => {
        static $TABLE: Interner = Interner::empty();

        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $Name(u32);

        impl $Name {
            /// The number, to index arrays of this process.
            pub const fn number(self) -> u32 {
                self.0
            }

            /// The one with this number. NB: only for numbers that came from [`Self::number`] in this process.
            pub const fn from_number(number: u32) -> Self {
                Self(number)
            }

            /// A hash of the identity, the same in every process; shards rows and state.
            pub fn shard_hash(self) -> u64 {
                stable_hash($TABLE.text(self.0).as_bytes())
            }

            /// How many this process has interned.
            pub fn count() -> usize {
                $TABLE.len()
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($TABLE.text(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self($TABLE.intern(&text)))
            }
        }
    };
}

interned!(
    /// An interned item. Its derived order is that of the numbers: for grouping, never for ranking (use [`Item::as_str`]).
    Item in ITEMS
);
interned!(
    /// An interned owner: a member, a session or a guest's order.
    Party in PARTIES
);

impl Item {
    /// The number of an item, assigned if it is new.
    pub fn intern(item: &str) -> Self {
        Self(ITEMS.intern(item))
    }

    /// The number of an already interned item. Requests use this, because they must not grow the table.
    pub fn find(item: &str) -> Option<Self> {
        ITEMS.find(item).map(Self)
    }

    /// The item's identity.
    pub fn as_str(self) -> &'static str {
        ITEMS.text(self.0)
    }

    /// The item's identity, without a copy.
    pub fn id(self) -> ItemId {
        ItemId::trusted(self.as_str())
    }
}

const SESSION: char = 's';
const MEMBER: char = 'm';
const GUEST: char = 'g';

impl Party {
    /// The number of an owner, assigned if it is new.
    pub fn intern(owner: &Owner) -> Self {
        match owner {
            Owner::Member(member) => Self::member(member.as_str()),
            Owner::Session(session) => Self(PARTIES.intern(&format!("{SESSION}{session}"))),
            Owner::Guest(order) => Self::guest(order.as_str()),
        }
    }

    /// The number of a guest's order.
    pub fn guest(order: &str) -> Self {
        Self(PARTIES.intern(&format!("{GUEST}{order}")))
    }

    /// The number of a member.
    pub fn member(member: &str) -> Self {
        Self(PARTIES.intern(&format!("{MEMBER}{member}")))
    }

    /// The owner.
    pub fn owner(self) -> Owner {
        let text = PARTIES.text(self.0);
        let id = &text[1..];
        match text.chars().next() {
            Some(MEMBER) => Owner::Member(MemberId::trusted(id)),
            Some(GUEST) => Owner::Guest(OrderId::trusted(id)),
            _ => Owner::Session(SessionId::trusted(id)),
        }
    }

    /// Whether it is a member.
    pub fn is_member(self) -> bool {
        PARTIES.text(self.0).starts_with(MEMBER)
    }
}

/// FNV-1a with a final mix: short inputs, no state, the same in every process.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_give_their_texts_back_from_any_thread() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..3_000).map(|n| Item::intern(&format!("intern-test-{n}"))).collect::<Vec<_>>()))
            .collect();
        let numbers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]));
        for (n, item) in numbers[0].iter().enumerate() {
            assert_eq!(item.as_str(), format!("intern-test-{n}"));
        }
        assert_eq!(Item::find("intern-test-never"), None);
        let owner = Owner::Session(SessionId::trusted("x"));
        assert_eq!(Party::intern(&owner).owner(), owner);
        assert_ne!(Party::intern(&owner), Party::member("x"));
    }
}
