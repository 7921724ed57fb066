//! From where to where a [`Range`] of a partition reaches.

use super::{KEY_BYTES_MAX, Range};
use crate::prefix::beyond;

/// The sort keys of a range: from the first one on, up to the second one, which is not among them. None where it holds nothing.
pub(crate) fn bounds(range: &Range) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut from = range.prefix.clone();
    // Longer than any key, and above all of them.
    let mut to = beyond(&range.prefix).unwrap_or_else(|| vec![0xff; KEY_BYTES_MAX + 1]);
    match &range.after {
        Some(after) if range.descending => to = to.min(after.clone()),
        Some(after) => {
            let mut next = after.clone();
            next.push(0);
            from = from.max(next);
        }
        None => (),
    }
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefix: &[u8], after: Option<&[u8]>, descending: bool) -> Option<(Vec<u8>, Vec<u8>)> {
        bounds(&Range { prefix: prefix.to_vec(), after: after.map(<[u8]>::to_vec), descending })
    }

    /// If it failed, a page would skip a record or give one twice.
    #[test]
    fn a_range_is_what_its_prefix_and_the_last_one_leave() {
        let some = |from: &[u8], to: &[u8]| Some((from.to_vec(), to.to_vec()));
        let top = vec![0xff; KEY_BYTES_MAX + 1];
        assert_eq!(of(b"", None, false), some(b"", &top));
        assert_eq!(of(b"", None, true), some(b"", &top));
        assert_eq!(of(b"a", None, true), some(b"a", b"b"));
        assert_eq!(of(b"a", Some(b"ab"), false), some(b"ab\0", b"b"));
        assert_eq!(of(b"a", Some(b"ab"), true), some(b"a", b"ab"));
        assert_eq!(of(b"b", Some(b"a"), false), some(b"b", b"c"), "behind what is before the prefix lies all of it");
        assert_eq!(of(b"b", Some(b"c"), false), None);
        assert_eq!(of(b"b", Some(b"a"), true), None);
        assert_eq!(of(b"a", Some(b"a"), true), None);
        assert_eq!(of(b"\xff", Some(b"\xff\x01"), false), some(b"\xff\x01\0", &top));
    }
}
