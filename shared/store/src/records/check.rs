//! What is refused before a store sees it, the same by both.

use rustc_hash::FxHashSet;

use super::{
    Effect, Expect, KEY_BYTES_MAX, PAGE_MAX, Range, STEPS_MAX, Step, TABLE_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::StoreError;

fn refuse(reason: String) -> Result<(), StoreError> {
    Err(StoreError::Refused(reason))
}

pub(crate) fn table(name: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > TABLE_BYTES_MAX || !name.bytes().all(plain) {
        return refuse(format!(
            "{name:?} cannot be a table of records: use up to {TABLE_BYTES_MAX} small letters, digits and `_`"
        ));
    }
    Ok(())
}

pub(crate) fn key(what: &str, key: &[u8]) -> Result<(), StoreError> {
    if key.len() > KEY_BYTES_MAX {
        return refuse(format!("a {what} of {} bytes: up to {KEY_BYTES_MAX} are taken", key.len()));
    }
    Ok(())
}

pub(crate) fn page(limit: usize) -> Result<(), StoreError> {
    if limit > PAGE_MAX {
        return refuse(format!("a page of {limit}: up to {PAGE_MAX} are given"));
    }
    Ok(())
}

/// A place that may be read: table, partition and, where one is named, sort key.
pub(crate) fn place(name: &str, partition: &[u8], sort: Option<&[u8]>) -> Result<(), StoreError> {
    table(name)?;
    key("partition", partition)?;
    sort.map_or(Ok(()), |sort| key("sort key", sort))
}

/// A scan.
pub(crate) fn scan(name: &str, partition: &[u8], range: &Range, limit: usize) -> Result<(), StoreError> {
    page(limit)?;
    place(name, partition, Some(&range.prefix))?;
    range.after.as_ref().map_or(Ok(()), |after| key("sort key", after))
}

/// The steps of a transaction, and how many bytes they have.
pub(crate) fn steps(steps: &[Step]) -> Result<usize, StoreError> {
    if steps.is_empty() || steps.len() > STEPS_MAX {
        refuse(format!("a transaction of {} steps: from 1 to {STEPS_MAX} are taken", steps.len()))?;
    }
    let mut sorts = FxHashSet::default();
    let mut bytes = 0;
    for step in steps {
        key("sort key", &step.sort)?;
        if !sorts.insert(step.sort.as_slice()) {
            refuse("two steps of a transaction name one record".into())?;
        }
        bytes += step.sort.len();
        match &step.effect {
            Effect::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                refuse(format!("a value of {} bytes: up to {VALUE_BYTES_MAX} are taken", value.len()))?;
            }
            Effect::Put { value, .. } => bytes += value.len(),
            Effect::Delete if step.expect == Expect::Absent => refuse("a record that is absent cannot be deleted".into())?,
            Effect::Delete | Effect::Check => (),
        }
    }
    if bytes > TRANSACTION_BYTES_MAX {
        refuse(format!("a transaction of {bytes} bytes: up to {TRANSACTION_BYTES_MAX} are taken"))?;
    }
    Ok(bytes)
}
