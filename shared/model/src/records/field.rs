//! A field of a record is stated once, in `record!`: name, type, rule and meaning. From that come the struct, its JSON with
//! absent fields left out, and its raw form, in which every field may be absent so that errors name it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;

use super::{Invalid, Text};
use crate::ids::{EntryId, ItemId, MemberId, OrderId, SessionId, check_id};
use crate::units::{Day, EventTime};

/// A type of fields.
pub(crate) trait Field: Sized {
    /// Its JSON value.
    type Raw<'a>: Deserialize<'a>;
    /// What a rule makes of a JSON value: the field itself, or what its option holds.
    type Value: Into<Self>;

    /// The field of a record that lacks it.
    fn absent(field: &str) -> Result<Self, Invalid> {
        Err(Invalid::required(field))
    }
    /// Whether it is left out of the JSON.
    fn is_absent(&self) -> bool {
        false
    }
    /// Reads it by a rule.
    fn read<'a>(
        field: &str,
        raw: Option<Self::Raw<'a>>,
        rule: impl FnOnce(&str, Self::Raw<'a>) -> Result<Self::Value, Invalid>,
    ) -> Result<Self, Invalid> {
        raw.map_or_else(|| Self::absent(field), |raw| rule(field, raw).map(Into::into))
    }
}

/// A field whose type is its rule.
pub(crate) trait Plain: Field {
    /// The rule.
    fn rule(field: &str, raw: Self::Raw<'_>) -> Result<Self, Invalid>;
}

impl<T: Field> Field for Option<T> {
    type Raw<'a> = T::Raw<'a>;
    type Value = T;

    fn absent(_field: &str) -> Result<Self, Invalid> {
        Ok(None)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Field> Field for Vec<T> {
    type Raw<'a> = Vec<T::Raw<'a>>;
    type Value = Self;

    fn absent(_field: &str) -> Result<Self, Invalid> {
        Ok(Self::new())
    }
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Plain> Plain for Vec<T> {
    fn rule(field: &str, raw: Vec<T::Raw<'_>>) -> Result<Self, Invalid> {
        let entry = |(n, raw)| T::rule("", raw).map_err(|error| error.within(format!("{field}[{n}]")));
        raw.into_iter().enumerate().map(entry).collect()
    }
}

impl Field for bool {
    type Raw<'a> = Self;
    type Value = Self;

    fn absent(_field: &str) -> Result<Self, Invalid> {
        Ok(false)
    }
    fn is_absent(&self) -> bool {
        !self
    }
}

/// Types of fields: `Type: what it is in JSON`, and the rule if the type is one.
macro_rules! fields {
    ($($Type:ty: $Raw:ty $(, $rule:expr)?;)+) => { $(
        impl $crate::records::Field for $Type {
            type Raw<'a> = $Raw;
            type Value = Self;
        }
        $crate::records::fields!(@rule $Type $(, $rule)?);
    )+ };
    (@rule $Type:ty) => {};
    (@rule $Type:ty, $rule:expr) => {
        impl $crate::records::Plain for $Type {
            fn rule(field: &str, raw: Self::Raw<'_>) -> Result<Self, Invalid> {
                $rule(field, raw)
            }
        }
    };
}
pub(crate) use fields;

fields! {
    f64: f64;
    i64: i64;
    u32: i64;
    u64: u64, as_given;
    Box<str>: Text<'a>, identity;
    Day: Text<'a>, parsed;
    EntryId: Text<'a>, parsed;
    EventTime: Text<'a>, |field: &str, text: Text<'_>| EventTime::parse(field, &text);
    ItemId: Text<'a>, parsed;
    MemberId: Text<'a>, parsed;
    OrderId: Text<'a>, parsed;
    SessionId: Text<'a>, parsed;
}
fields!(@rule bool, as_given);

/// What needs no rule, or one that other fields decide.
pub(crate) fn as_given<R: Into<T>, T>(_field: &str, raw: R) -> Result<T, Invalid> {
    Ok(raw.into())
}

/// A field by its type's rule.
pub(crate) fn plain<T: Field>(field: &str, raw: Option<T::Raw<'_>>) -> Result<T, Invalid>
where
    T::Value: for<'a> Plain<Raw<'a> = T::Raw<'a>>,
{
    T::read(field, raw, T::Value::rule)
}

/// What parses by itself.
pub(crate) fn parsed<T: FromStr<Err = Invalid>>(field: &str, text: Text<'_>) -> Result<T, Invalid> {
    text.parse().map_err(|error: Invalid| Invalid::new(field, error.reason))
}

fn identity(field: &str, text: Text<'_>) -> Result<Box<str>, Invalid> {
    check_id(field, &text).map(|()| text.into())
}

/// An integer within bounds.
pub(crate) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str, i64) -> Result<T, Invalid>
where
    T: Copy + Display + Into<i64> + TryFrom<i64>,
{
    move |field, value| {
        let (min, max) = (*range.start(), *range.end());
        let within = T::try_from(value).ok().filter(|_| (min.into()..=max.into()).contains(&value));
        within.ok_or_else(|| Invalid::new(field, format!("is {value}; from {min} to {max} is accepted")))
    }
}

/// A text of at most `max` bytes without control characters (line breaks are allowed).
pub(crate) fn text(max: usize) -> impl Fn(&str, Text<'_>) -> Result<Box<str>, Invalid> {
    move |field, value| {
        if value.len() > max {
            return Err(Invalid::new(field, format!("is {} bytes long; at most {max} are accepted", value.len())));
        }
        if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            return Err(Invalid::new(field, "must not contain control characters"));
        }
        Ok(value.into())
    }
}

/// Declares a record, or an object within one. Its fields are public.
///
/// A field with `= rule` is read by that rule, which may name the fields before it; any other by its type. `raw Name` names the
/// raw form, which has the fields after `beside` too. `new(…)` lists the fields that no record lacks, for a constructor.
/// `=> check` runs on the record as a whole.
macro_rules! record {
    (
        $(#[$doc:meta])*
        pub struct $Name:ident, raw $Raw:ident {
            $($(#[$field_doc:meta])* $field:ident: $Type:ty $(= $rule:expr)?,)+
        }
        $(new($($given:ident: $Given:ty),+);)?
        $(beside { $($beside:ident: $Beside:ty,)+ })?
        $(=> $check:expr)?
    ) => {
        $(#[$doc])*
        #[derive(serde::Serialize)]
        pub struct $Name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "crate::records::Field::is_absent")] pub $field: $Type,)+
        }

        #[derive(serde::Deserialize)]
        pub(crate) struct $Raw<'a> {
            $(#[serde(borrow)] $field: Option<<$Type as $crate::records::Field>::Raw<'a>>,)+
            $($(#[serde(borrow)] $beside: Option<<$Beside as $crate::records::Field>::Raw<'a>>,)+)?
        }

        $crate::records::record!(@new $Name [$($field: $Type),+] $($($given: $Given),+)?);

        impl $Name {
            fn of(raw: $Raw<'_>) -> Result<Self, Invalid> {
                $(let $field = <$Type as $crate::records::Field>::read(
                    stringify!($field),
                    raw.$field,
                    $crate::records::record!(@rule $Type $(, $rule)?),
                )?;)+
                let read = Self { $($field),+ };
                $(let read = $check(read)?;)?
                Ok(read)
            }
        }

        impl $crate::records::Field for $Name {
            type Raw<'a> = $crate::records::Object<$Raw<'a>>;
            type Value = Self;
        }

        impl $crate::records::Plain for $Name {
            fn rule(_field: &str, raw: Self::Raw<'_>) -> Result<Self, Invalid> {
                Self::of(raw.0)
            }
        }
    };
    (@new $Name:ident [$($field:ident: $Type:ty),+]) => {};
    (@new $Name:ident [$($field:ident: $Type:ty),+] $($given:ident: $Given:ty),+) => {
        impl $Name {
            /// One with only these fields.
            #[allow(unused_variables, reason = "what is given takes the place of what is absent")]
            pub fn new($($given: $Given),+) -> Self {
                let given = ($($given,)+);
                $(let $field = <$Type as $crate::records::Field>::absent(stringify!($field));)+
                let ($($given,)+) = given;
                $(let $given = Ok::<_, Invalid>($given);)+
                Self { $($field: $field.expect("what is not given may be absent")),+ }
            }
        }
    };
    (@rule $Type:ty) => { <<$Type as $crate::records::Field>::Value as $crate::records::Plain>::rule };
    (@rule $Type:ty, $rule:expr) => { $rule };
}
pub(crate) use record;
