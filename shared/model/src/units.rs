//! Units: event time and days, kinds and tiers, and log positions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::calendar;
use crate::records::Invalid;

/// When something happened in the shop, in milliseconds since 1970-01-01 UTC.
///
/// Written as RFC 3339 in UTC with three decimals: `2026-01-05T10:11:12.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EventTime(pub i64);

const MS_A_DAY: i64 = 86_400_000;

impl EventTime {
    /// The first accepted time, 1990-01-01. Fixed: whether a record is valid must not depend on when it is read.
    pub const MIN: Self = Self(631_152_000_000);
    /// The first time no longer accepted, 2100-01-01.
    pub const END: Self = Self(4_102_444_800_000);

    /// Parses RFC 3339 with an offset (`T` between date and time, at most 9 decimals), truncated to milliseconds; a leap second
    /// becomes the second before it. Must be at least [`Self::MIN`] and before [`Self::END`].
    ///
    /// # Errors
    /// [`Invalid`] naming `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        match calendar::parse_time(text) {
            Some(ms) => Self::from_ms(field, ms),
            None => {
                let example = "2026-01-05T10:11:12.123Z";
                Err(Invalid::new(field, format!("{text:?} is not a time as RFC 3339 with an offset, like {example}")))
            }
        }
    }

    /// From milliseconds since 1970, within the accepted range.
    ///
    /// # Errors
    /// [`Invalid`] naming `field`.
    pub fn from_ms(field: &str, ms: impl Into<i128>) -> Result<Self, Invalid> {
        let ms = ms.into();
        if ms < i128::from(Self::MIN.0) || ms >= i128::from(Self::END.0) {
            return Err(Invalid::new(field, "lies outside of the accepted years 1990 to 2099"));
        }
        Ok(Self(i64::try_from(ms).expect("within the accepted years")))
    }

    /// Its UTC day. NB: exact for the accepted years; times beyond some 5 million years have no day.
    pub fn day(self) -> Day {
        let days = self.0.div_euclid(MS_A_DAY);
        Day(i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        calendar::write_time(self.0, f)
    }
}

impl Serialize for EventTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        calendar::parse_time(&text).map(Self).ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is not a time")))
    }
}

/// A UTC day, counted from 1970-01-01. Written `2026-01-05`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Day(pub i32);

impl Day {
    /// The day `days` later.
    #[must_use]
    pub fn plus(self, days: u32) -> Self {
        Self(self.0.saturating_add_unsigned(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        calendar::write_date(i64::from(self.0), f)
    }
}

impl FromStr for Day {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let days = calendar::parse_date(text.as_bytes());
        let days = days.ok_or_else(|| Invalid::new("day", format!("{text:?} is not a day like 2026-01-05")))?;
        Ok(Self(i32::try_from(days).expect("the days of four-digit years fit")))
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A closed set of words: name, the field it stands in, and each word, with a stable code where one is stored.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident, $field:literal { $($(#[$word_doc:meta])* $variant:ident $text:literal $(= $code:literal)?,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$word_doc])* #[serde(rename = $text)] $variant $(= $code)?),+ }

        impl $name {
            /// All, by code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in records, exports and settings.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The code: stable where it is stored.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// By its code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $(code if code == Self::$variant as u8 => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;
            fn from_str(text: &str) -> Result<Self, $crate::Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::Invalid::new($field, format!("{text:?} is none of {}", [$($text),+].join(", ")))),
                }
            }
        }

        $crate::records::fields! { $name: $crate::records::Text<'a>, $crate::records::parsed; }
    };
}
pub(crate) use words;

words! {
    /// What an owner did with an item. Codes are in alphabetical order, so that keys sort as exports do, with gaps for more.
    /// Codes below 16 belong to format 1 ([`Kind::of_format_1`]).
    Kind, "kind" {
        /// Put into the basket.
        Cart "cart" = 24,
        /// A recommendation was clicked.
        Click "click" = 40,
        /// Commented on.
        Comment "comment" = 56,
        /// Not interested: no longer recommended to the owner.
        Dismiss "dismiss" = 72,
        /// Marked as a favourite.
        Favorite "favorite" = 88,
        /// Followed.
        Follow "follow" = 104,
        /// A recommendation was shown.
        Impression "impression" = 120,
        /// Bought according to the storefront; orders are more authoritative.
        Purchase "purchase" = 136,
        /// Searched; keyed by query, in no basket, history or popularity.
        Search "search" = 152,
        /// Viewed the product page.
        View "view" = 168,
    }
}

impl Kind {
    /// Whether it is about a shown recommendation: keyed by scenario too, with a cap of its own.
    pub const fn is_of_a_list(self) -> bool {
        matches!(self, Self::Impression | Self::Click)
    }

    /// By its code in keys of format 1.
    pub const fn of_format_1(code: u8) -> Option<Self> {
        use Kind::{Cart, Click, Comment, Favorite, Follow, Impression, Purchase, Search, View};
        Some(match code {
            1 => Cart,
            2 => Click,
            3 => Comment,
            4 => Favorite,
            5 => Follow,
            6 => Impression,
            7 => Purchase,
            8 => Search,
            9 => View,
            _ => return None,
        })
    }
}

words! {
    /// A member's level, with its benefits (R18); not a staff role.
    Tier, "tier" {
        /// The free level, and the default.
        Normal "normal" = 0,
        /// Discounts (R30).
        Vip "vip" = 1,
        /// Higher rewards (R23).
        Svip "svip" = 2,
    }
}

words! {
    /// The event topics of the log (schemas/README.md).
    Topic, "topic" {
        /// What owners did with items.
        Interactions "interactions" = 0,
        /// Orders and their refunds.
        Orders "orders" = 1,
        /// What is sold.
        Catalog "catalog" = 2,
        /// Members and the sessions merged into them.
        Members "members" = 3,
        /// Members' ledgers: points spent and adjusted, the wallet. Written by Kindred only.
        Ledger "ledger" = 4,
    }
}

impl Topic {
    /// The topics that shops write.
    pub const OF_SHOPS: [Self; 4] = [Self::Interactions, Self::Orders, Self::Catalog, Self::Members];
}

words! {
    /// What a ledger entry does (LOYALTY 1).
    LedgerKind, "ledgerkind" {
        /// Points are spent.
        Spend "spend" = 0,
        /// Returns a spend or a negative adjustment, wholly or in part.
        Return "return" = 1,
        /// Staff adds or deducts points.
        Adjust "adjust" = 2,
        /// Money enters the wallet through a provider.
        WalletRecharge "wallet_recharge" = 3,
        /// An order is paid from the wallet.
        WalletPay "wallet_pay" = 4,
        /// A wallet payment is refunded.
        WalletRefund "wallet_refund" = 5,
        /// Money is paid out to the member.
        WalletPayOut "wallet_pay_out" = 6,
        /// Staff adds or deducts money.
        WalletAdjust "wallet_adjust" = 7,
    }
}

impl LedgerKind {
    /// Whether it moves wallet money, not points.
    pub const fn is_of_wallet(self) -> bool {
        !matches!(self, Self::Spend | Self::Return | Self::Adjust)
    }

    /// Whether staff made it: with a reason, in either direction.
    pub const fn is_adjustment(self) -> bool {
        matches!(self, Self::Adjust | Self::WalletAdjust)
    }
}

/// The next offset to read of each (topic, partition).
///
/// An opaque token to clients ([`fmt::Display`], [`FromStr`]). A missing entry means 0.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Position {
    next: std::collections::BTreeMap<(Topic, u32), u64>,
}

impl Position {
    /// The position before the first record of every topic.
    pub fn beginning() -> Self {
        Self::default()
    }

    /// The next offset to read of a partition.
    pub fn next_offset(&self, topic: Topic, partition: u32) -> u64 {
        self.next.get(&(topic, partition)).copied().unwrap_or(0)
    }

    /// Marks `offset` of a partition as read; never steps back.
    pub fn passed(&mut self, topic: Topic, partition: u32, offset: u64) {
        let next = self.next.entry((topic, partition)).or_insert(0);
        *next = (*next).max(offset.saturating_add(1));
    }

    /// Raises it to the least position that reaches both.
    pub fn join(&mut self, other: &Self) {
        for (&key, &offset) in &other.next {
            let next = self.next.entry(key).or_insert(0);
            *next = (*next).max(offset);
        }
    }

    /// Whether everything before `other` is before `self`, too.
    pub fn reaches(&self, other: &Self) -> bool {
        other.next.iter().all(|(key, offset)| self.next.get(key).copied().unwrap_or(0) >= *offset)
    }

    /// The partitions with their next offsets, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (Topic, u32, u64)> + '_ {
        self.next.iter().map(|(&(topic, partition), &offset)| (topic, partition, offset))
    }

    /// The number of records between `self` and a later position.
    pub fn lag_behind(&self, end: &Self) -> u64 {
        // A position from a caller may hold any numbers.
        end.partitions().fold(0, |lag: u64, (t, p, offset)| lag.saturating_add(offset.saturating_sub(self.next_offset(t, p))))
    }
}

impl fmt::Display for Position {
    /// `i0.1234-o0.17`: short, safe in URLs and headers. The form may change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.next.is_empty() {
            return f.write_str("0");
        }
        for (n, ((topic, partition), offset)) in self.next.iter().enumerate() {
            let dash = if n == 0 { "" } else { "-" };
            write!(f, "{dash}{}{partition}.{offset}", &topic.name()[..1])?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut position = Self::default();
        if text == "0" {
            return Ok(position);
        }
        let wrong = || Invalid::new("position", "is not a position that this server gave out");
        for part in text.split('-') {
            let topic = Topic::ALL.iter().find(|t| part.starts_with(&t.name()[..1])).ok_or_else(wrong)?;
            let (partition, offset) = part[1..].split_once('.').ok_or_else(wrong)?;
            let key = (*topic, partition.parse().map_err(|_| wrong())?);
            position.next.insert(key, offset.parse().map_err(|_| wrong())?);
        }
        // One token per position: other spellings (a sign, leading zeros, another order) are invalid.
        if position.to_string() == text { Ok(position) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_days_read_back_as_written() {
        let time = EventTime::parse("at", "2026-01-05T11:11:12.1239+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-01-05T10:11:12.123Z");
        assert_eq!(time.day().to_string(), "2026-01-05");
        assert_eq!("2026-01-05".parse::<Day>().unwrap(), time.day());
        assert_eq!(EventTime::parse("at", "2026-01-05T10:11:12Z").unwrap().to_string(), "2026-01-05T10:11:12.000Z");
        assert_eq!(serde_json::from_value::<EventTime>(serde_json::to_value(time).unwrap()).unwrap(), time);
        for bad in
            ["1989-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-01-05T10:11:12", "2026-01-05", "now"]
        {
            assert!(EventTime::parse("at", bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn positions_read_back_and_compare_by_partition() {
        let mut a = Position::beginning();
        a.passed(Topic::Interactions, 0, 41);
        let mut b = a.clone();
        b.passed(Topic::Orders, 0, 0);
        assert!(b.reaches(&a) && !a.reaches(&b));
        assert_eq!(b.to_string().parse::<Position>().unwrap(), b);
        assert_eq!(a.lag_behind(&b), 1);
        assert!("x".parse::<Position>().is_err() && "".parse::<Position>().is_err());
    }

    #[test]
    fn kinds_sort_like_their_names() {
        assert!(Kind::ALL.is_sorted_by_key(|kind| kind.name()));
    }
}
