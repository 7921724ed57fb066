//! Keys in the order of their bytes.

/// The least key that is above every key with the prefix; none where nothing is.
pub(crate) fn beyond(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut beyond = prefix[..=last].to_vec();
    beyond[last] += 1;
    Some(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_prefix_is_the_next_key_without_it() {
        assert_eq!(beyond(b""), None);
        assert_eq!(beyond(b"\xff\xff"), None);
        assert_eq!(beyond(b"a"), Some(b"b".to_vec()));
        assert_eq!(beyond(b"a\0"), Some(b"a\x01".to_vec()));
        assert_eq!(beyond(b"a\xff"), Some(b"b".to_vec()));
    }
}
