//! The partition of a key.
//!
//! A key begins with an identity that ends in `0x00` (shared/model's codec). The bucket hashes the bytes up to there, so all keys
//! of an owner or item share a partition, and a scan below a whole identity reads only it. Keys without such a prefix are hashed
//! whole. The hash is part of the storage format and never changes.

/// The hashed bytes, and whether every key that starts with `key` has the same.
fn deciding(key: &[u8]) -> (&[u8], bool) {
    match key.iter().position(|&byte| byte == 0) {
        Some(end) => (&key[..=end], true),
        None => (key, false),
    }
}

/// The bucket of a key.
pub(super) fn bucket(key: &[u8], buckets: u32) -> i32 {
    let (deciding, _) = deciding(key);
    // FNV-1a, then mixed: its low bits alone are poor for short texts.
    let hash =
        deciding.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i32::try_from((mixed >> 32) % u64::from(buckets)).expect("buckets are few")
}

/// The buckets with keys of a prefix: one, or all.
pub(super) fn buckets_below(prefix: &[u8], buckets: u32) -> Vec<i32> {
    if deciding(prefix).1 {
        return vec![bucket(prefix, buckets)];
    }
    (0..i32::try_from(buckets).expect("buckets are few")).collect()
}

#[cfg(test)]
mod tests {
    use kindred_model::codec::KeyCodec;
    use kindred_model::ids::{ItemId, MemberId, Owner};

    use super::*;

    /// If this failed, an owner's history would be incomplete, or need a scan of all partitions.
    #[test]
    fn one_identity_is_one_bucket() {
        for n in 0..200 {
            let owner = Owner::Member(MemberId::trusted(format!("member {n}"))).to_bytes();
            let below = buckets_below(&owner, 64);
            assert_eq!(below.len(), 1);
            for rest in [&b"\x01item\0\x09\x80\0\0\x01"[..], b"", b"\0\0", b"\xff"] {
                assert_eq!(vec![bucket(&[&owner, rest].concat(), 64)], below);
            }
        }
        assert_eq!(buckets_below(b"", 3), [0, 1, 2]);
        assert_eq!(buckets_below(b"\x02half an identi", 3), [0, 1, 2]);
    }

    /// If this failed, stored rows would not be found.
    #[test]
    fn the_hash_stays_what_it_is() {
        let of = |text: &str| bucket(&ItemId::trusted(text.to_owned()).to_bytes(), 64);
        assert_eq!([of("a"), of("item-1"), of("item-2"), of("85123A")], PINNED);
    }

    const PINNED: [i32; 4] = [62, 20, 37, 62];

    /// If this failed, some partitions would grow to many times the size of others.
    #[test]
    fn identities_spread_evenly() {
        let mut counts = [0_u32; 64];
        for n in 0..64_000 {
            counts[usize::try_from(bucket(&ItemId::trusted(format!("{n}")).to_bytes(), 64)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
