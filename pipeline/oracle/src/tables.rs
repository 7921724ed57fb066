//! Tables in memory, byte for byte as the store must hold them, and their differences.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::views::{Flow, ReadError, Rows, Table, TableInfo, Visit, input_tables, view_tables};

/// Rows by table and key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables(BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>);

impl Tables {
    /// The rows of one table.
    pub fn of<T: Table>(rows: impl IntoIterator<Item = (T::Key, T::Row)>) -> Self {
        let mut tables = Self::default();
        rows.into_iter().for_each(|(key, row)| tables.put::<T>(&key, &row));
        tables
    }

    /// Puts a row.
    pub fn put<T: Table>(&mut self, key: &T::Key, row: &T::Row) {
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        self.set(T::NAME, key.to_bytes(), Some(bytes));
    }

    /// Puts or deletes an encoded row, as the sink does.
    pub fn set(&mut self, table: &'static str, key: Vec<u8>, row: Option<Vec<u8>>) {
        let rows = self.0.entry(table).or_default();
        match row {
            Some(row) => drop(rows.insert(key, row)),
            None => drop(rows.remove(&key)),
        }
    }

    /// Adds all rows of `other`.
    pub fn extend(&mut self, other: Self) {
        for (table, rows) in other.0 {
            self.0.entry(table).or_default().extend(rows);
        }
    }

    /// The number of rows in all tables.
    pub fn row_count(&self) -> u64 {
        self.0.values().map(|rows| rows.len() as u64).sum()
    }

    /// The rows of one table in the order of their keys.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.get(table).into_iter().flatten().map(|(key, row)| (key.as_slice(), row.as_slice()))
    }
}

impl Rows for Tables {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.get(table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        let Some(rows) = self.0.get(table) else { return Ok(()) };
        for (key, row) in rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if let ControlFlow::Break(ended) = visit(key, row) {
                return ended;
            }
        }
        Ok(())
    }
}

/// A row that differs from the expected one.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The table's name.
    pub table: &'static str,
    /// The encoded key.
    pub key: Vec<u8>,
    /// The expected row, if any.
    pub expected: Option<Vec<u8>>,
    /// The actual row, if any.
    pub actual: Option<Vec<u8>>,
}

impl Difference {
    fn info(&self) -> Option<TableInfo> {
        all_tables().into_iter().find(|info| info.name == self.table)
    }

    fn describe_row(&self, row: Option<&Vec<u8>>) -> Option<String> {
        row.map(|row| self.info().map_or_else(|| format!("{row:?}"), |info| (info.describe_row)(row)))
    }

    /// The key, printable.
    pub fn describe_key(&self) -> String {
        self.info().map_or_else(|| format!("{:?}", self.key), |info| (info.describe_key)(&self.key))
    }

    /// The expected row, printable.
    pub fn describe_expected(&self) -> Option<String> {
        self.describe_row(self.expected.as_ref())
    }

    /// The actual row, printable.
    pub fn describe_actual(&self) -> Option<String> {
        self.describe_row(self.actual.as_ref())
    }
}

fn all_tables() -> Vec<TableInfo> {
    let mut tables = input_tables();
    tables.extend(view_tables());
    tables
}

/// The first `limit` rows that differ, over all tables: a table without expected rows must be empty.
///
/// # Errors
/// Those of reading.
pub fn first_differences(expected: &Tables, actual: &dyn Rows, limit: usize) -> Result<Vec<Difference>, ReadError> {
    let mut differences = Vec::new();
    for TableInfo { name: table, .. } in all_tables() {
        let mut expected = expected.rows(table).peekable();
        let mut add = |key: &[u8], expected: Option<&[u8]>, actual: Option<&[u8]>| {
            if differences.len() >= limit {
                return Flow::Break(Ok(()));
            }
            let (key, expected, actual) = (key.to_vec(), expected.map(<[u8]>::to_vec), actual.map(<[u8]>::to_vec));
            differences.push(Difference { table, key, expected, actual });
            Flow::Continue(())
        };
        // Both are in key order.
        actual.scan(table, &[], &mut |key, row| {
            while let Some((missing, should)) = expected.next_if(|(expected, _)| *expected < key) {
                add(missing, Some(should), None)?;
            }
            match expected.next_if(|(expected, _)| *expected == key) {
                Some((_, should)) if should == row => Flow::Continue(()),
                Some((_, should)) => add(key, Some(should), Some(row)),
                None => add(key, None, Some(row)),
            }
        })?;
        for (missing, should) in expected {
            if add(missing, Some(should), None).is_break() {
                break;
            }
        }
        if differences.len() >= limit {
            break;
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use kindred_model::views::popularity::Popularity;
    use kindred_model::{Day, ItemId, Kind};

    use super::*;

    /// If this failed, `verify` would miss rows that are wrong, missing or left over, or name the wrong ones.
    #[test]
    fn every_way_to_differ_is_found() {
        let key = |item: &str| (ItemId::trusted(item.to_owned()), Kind::View, Day(20_000));
        let (mut expected, mut actual) = (Tables::default(), Tables::default());
        for (item, here, there) in
            [("a", Some(1), None), ("b", Some(2), Some(2)), ("c", Some(3), Some(4)), ("d", None, Some(5)), ("e", Some(6), None)]
        {
            if let Some(owners) = here {
                expected.put::<Popularity>(&key(item), &owners);
            }
            if let Some(owners) = there {
                actual.put::<Popularity>(&key(item), &owners);
            }
        }
        let all = first_differences(&expected, &actual, 10).unwrap();
        let shown: Vec<_> = all.iter().map(|d| (d.key.clone(), d.describe_expected(), d.describe_actual())).collect();
        let number = |n: u64| Some(n.to_string());
        assert_eq!(
            shown,
            [
                (key("a").to_bytes(), number(1), None),
                (key("c").to_bytes(), number(3), number(4)),
                (key("d").to_bytes(), None, number(5)),
                (key("e").to_bytes(), number(6), None),
            ]
        );
        assert_eq!(all[0].describe_key(), "(\"a\", View, Day(20000))");
        assert_eq!(first_differences(&expected, &actual, 2).unwrap().len(), 2);
        assert!(first_differences(&expected, &expected, 10).unwrap().is_empty());
    }
}
