//! The encoding of keys and rows in the store.
//!
//! Keys order as exports sort: identities end in `0x00`, which none contains; numbers are big-endian with a flipped sign bit.
//! Rows are compact: variable-length integers, identities terminated as in keys.

use std::cmp::Reverse;
use std::fmt;

use crate::ids::{EntryId, ItemId, MemberId, OrderId, Owner, SessionId};
use crate::records::{InteractionKey, SCENARIO, Subject};
use crate::units::{Day, EventTime, Kind};

/// Bytes that do not decode: a person must look.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("stored bytes do not decode: {0}")]
pub struct Corrupt(pub &'static str);

/// A type with an order-preserving encoding.
pub trait KeyCodec: Sized + Clone + Ord + fmt::Debug {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);
    /// Decodes, advancing `bytes`; [`Corrupt`] when they do not decode.
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt>;

    /// The encoding as a vector.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode(&mut out);
        out
    }
    /// Decodes a whole key; [`Corrupt`] when the bytes do not decode, or some are left over.
    fn from_bytes(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let key = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(key) } else { Err(Corrupt("a key with bytes left over")) }
    }
}

/// The encoding of a row's value.
pub trait RowCodec: Sized + Clone + PartialEq + fmt::Debug {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);
    /// Decodes a whole row; [`Corrupt`] when the bytes do not decode.
    fn decode(bytes: &[u8]) -> Result<Self, Corrupt>;
}

/// Appends an identity and its terminator.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// Reads an identity up to its terminator; [`Corrupt`] without one or UTF-8.
pub fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Corrupt> {
    let end = bytes.iter().position(|&byte| byte == 0).ok_or(Corrupt("a text without a terminator"))?;
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    std::str::from_utf8(text).map_err(|_| Corrupt("a text that is not UTF-8"))
}

/// Reads `N` bytes; [`Corrupt`] when there are fewer.
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Corrupt> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Corrupt("too few bytes"))?;
    *bytes = rest;
    Ok(*taken)
}

/// Appends a variable-length integer (LEB128).
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a variable-length integer; [`Corrupt`] when it does not end within 64 bits.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, Corrupt> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(bytes)?;
        let seven = u64::from(byte & 0x7f);
        if seven << shift >> shift != seven {
            break;
        }
        value |= seven << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Corrupt("a number of more than 64 bits"))
}

/// Appends a signed variable-length integer (zigzag).
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Reads a signed variable-length integer; errors as [`take_varint`].
pub fn take_signed(bytes: &mut &[u8]) -> Result<i64, Corrupt> {
    let value = take_varint(bytes)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Reads a time; [`Corrupt`] when it is out of range.
pub fn take_time(bytes: &mut &[u8]) -> Result<EventTime, Corrupt> {
    let ms = take_signed(bytes)?;
    let has_day = i32::try_from(ms.div_euclid(86_400_000)).is_ok();
    if has_day { Ok(EventTime(ms)) } else { Err(Corrupt("a time out of range")) }
}

/// Reads a day of a row; [`Corrupt`] when it is out of range.
pub fn take_day(bytes: &mut &[u8]) -> Result<Day, Corrupt> {
    i32::try_from(take_signed(bytes)?).map(Day).map_err(|_| Corrupt("a day out of range"))
}

/// A decoded row; [`Corrupt`] when bytes are left over.
pub fn whole<T>(rest: &[u8], value: T) -> Result<T, Corrupt> {
    if rest.is_empty() { Ok(value) } else { Err(Corrupt("a row with bytes left over")) }
}

macro_rules! text_key {
    ($($name:ident),+) => { $(
        impl KeyCodec for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_text(out, self.as_str());
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
                Ok(Self::trusted(take_text(bytes)?.to_owned()))
            }
        }
    )+ };
}
text_key!(EntryId, ItemId, MemberId, OrderId, SessionId);

impl KeyCodec for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
    fn decode(_bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        Ok(())
    }
}

macro_rules! tuple_key {
    ($($Part:ident $n:tt),+) => {
        impl<$($Part: KeyCodec),+> KeyCodec for ($($Part,)+) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$n.encode(out);)+
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
                Ok(($($Part::decode(bytes)?,)+))
            }
        }
    };
}
tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);

/// Flipping the sign bit makes signed numbers order as unsigned ones.
const SIGN: u64 = 1 << 63;

impl KeyCodec for Day {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&((self.0 as u32) ^ 0x8000_0000).to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        Ok(Self((u32::from_be_bytes(take(bytes)?) ^ 0x8000_0000) as i32))
    }
}

/// Latest first.
impl KeyCodec for Reverse<EventTime> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(!(self.0.0 as u64) ^ SIGN).to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        Ok(Self(EventTime(!(u64::from_be_bytes(take(bytes)?) ^ SIGN) as i64)))
    }
}

impl KeyCodec for Kind {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        let [code] = take(bytes)?;
        Self::from_code(code).ok_or(Corrupt("an unknown kind"))
    }
}

const SESSION: u8 = 1;
const MEMBER: u8 = 2;
const GUEST: u8 = 3;

impl KeyCodec for Owner {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Session(session) => {
                out.push(SESSION);
                session.encode(out);
            }
            Self::Member(member) => {
                out.push(MEMBER);
                member.encode(out);
            }
            Self::Guest(order) => {
                out.push(GUEST);
                order.encode(out);
            }
        }
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        match take(bytes)? {
            [SESSION] => Ok(Self::Session(SessionId::decode(bytes)?)),
            [MEMBER] => Ok(Self::Member(MemberId::decode(bytes)?)),
            [GUEST] => Ok(Self::Guest(OrderId::decode(bytes)?)),
            _ => Err(Corrupt("an unknown kind of owner")),
        }
    }
}

const ITEM: u8 = 1;
const QUERY: u8 = 2;
/// Sorts after every day of the accepted years.
const RETRACT: [u8; 4] = [0xff; 4];

impl KeyCodec for InteractionKey {
    fn encode(&self, out: &mut Vec<u8>) {
        match &self.subject {
            Subject::Item(item) => {
                out.push(ITEM);
                item.encode(out);
            }
            Subject::Query(query) => {
                out.push(QUERY);
                put_text(out, query);
            }
        }
        self.kind.encode(out);
        match self.day {
            Some(day) => day.encode(out),
            None => out.extend_from_slice(&RETRACT),
        }
        if Self::has_scenario(self.kind, self.day) {
            put_text(out, &self.scenario);
        }
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
        let subject = match take(bytes)? {
            [ITEM] => Subject::Item(ItemId::decode(bytes)?),
            [QUERY] => Subject::Query(take_text(bytes)?.into()),
            _ => return Err(Corrupt("an unknown kind of subject")),
        };
        let kind = Kind::decode(bytes)?;
        let day = if bytes.starts_with(&RETRACT) {
            *bytes = &bytes[RETRACT.len()..];
            None
        } else {
            Some(Day::decode(bytes)?)
        };
        let scenario = if Self::has_scenario(kind, day) { take_text(bytes)?.into() } else { Box::default() };
        Ok(Self { subject, kind, day, scenario })
    }
}

/// Converts a format 1 key of the merged interactions; `None` if it is of today's format already. Format 1 had other codes of
/// kinds, all distinct from today's, and no scenario.
///
/// # Errors
/// [`Corrupt`] when the bytes are of neither format.
pub fn interaction_key_of_format_1(key: &[u8]) -> Result<Option<Vec<u8>>, Corrupt> {
    let mut rest = key;
    Owner::decode(&mut rest)?;
    let [_subject] = take(&mut rest)?;
    take_text(&mut rest)?;
    let &[code, ref day @ ..] = rest else { return Err(Corrupt("too few bytes")) };
    let Some(kind) = Kind::of_format_1(code) else {
        return <(Owner, InteractionKey)>::from_bytes(key).map(|_| None);
    };
    let mut migrated = key[..key.len() - rest.len()].to_vec();
    kind.encode(&mut migrated);
    migrated.extend_from_slice(day);
    if kind.is_of_a_list() && day != RETRACT {
        put_text(&mut migrated, SCENARIO);
    }
    <(Owner, InteractionKey)>::from_bytes(&migrated).map(|_| Some(migrated))
}

/// The unit row: its presence is the information.
impl RowCodec for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
    fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        whole(bytes, ())
    }
}

impl RowCodec for EventTime {
    fn encode(&self, out: &mut Vec<u8>) {
        put_signed(out, self.0);
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let time = take_time(&mut bytes)?;
        whole(bytes, time)
    }
}

impl RowCodec for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let value = take_varint(&mut bytes)?;
        whole(bytes, value)
    }
}
