//! Small named values of a generation. Earlier versions kept the API's keys here, in a scope of their own.
//!
//! A write or delete takes a timestamp above the stored one, even if this machine's clock is behind: a revoked key stays revoked.

use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::Connection;
use super::session::{answered, unreadable};
use crate::StoreError;

const SHARED: &str = "shared";

/// The scope of a generation's own values.
fn own(generation: &str) -> String {
    format!("generation:{generation}")
}

fn scope(generation: &str, name: &str) -> String {
    if ["key:", "key-end:", "key-used:"].iter().any(|prefix| name.starts_with(prefix)) {
        SHARED.to_owned()
    } else {
        own(generation)
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Connection {
    pub async fn get_named(&self, generation: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let values = (scope(generation, name), name);
        let get = &self.state.get_named;
        let result = answered(self.config.attempts, "get_named", || self.session.execute_unpaged(get, &values)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let row = rows.maybe_first_row::<(Vec<u8>,)>().map_err(|error| unreadable(&error))?;
        Ok(row.map(|(value,)| value))
    }

    /// Writes or deletes a value.
    pub async fn put_named(&self, generation: &str, name: &str, value: Option<&[u8]>) -> Result<(), StoreError> {
        let scope = scope(generation, name);
        let asked = (scope.as_str(), name);
        let written = &self.state.named_written;
        let result = answered(self.config.attempts, "named_written", || self.session.execute_unpaged(written, asked)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let stored = rows.maybe_first_row::<(Option<i64>,)>().map_err(|error| unreadable(&error))?;
        let timestamp = now_us().max(stored.and_then(|(at,)| at).map_or(0, |at| at + 1));
        match value {
            Some(value) => {
                let values = (scope.as_str(), name, value, timestamp);
                let put = &self.state.put_named;
                answered(self.config.attempts, "put_named", || self.session.execute_unpaged(put, &values)).await?;
            }
            None => {
                let values = (timestamp, scope.as_str(), name);
                let delete = &self.state.delete_named;
                answered(self.config.attempts, "delete_named", || self.session.execute_unpaged(delete, &values)).await?;
            }
        }
        Ok(())
    }

    pub async fn scan_named(&self, generation: &str, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for scope in [own(generation), SHARED.to_owned()] {
            let values = (scope, prefix);
            let scan = &self.state.scan_named;
            let result = answered(self.config.attempts, "scan_named", || self.session.execute_unpaged(scan, &values)).await?;
            let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
            for row in rows.rows::<(String, Vec<u8>)>().map_err(|error| unreadable(&error))? {
                let (name, value) = row.map_err(|error| unreadable(&error))?;
                if !name.starts_with(prefix) {
                    break;
                }
                found.push((name, value));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Deletes a generation's own values.
    pub async fn clear_named(&self, generation: &str) -> Result<(), StoreError> {
        let values = (now_us(), own(generation));
        let clear = &self.state.clear_named;
        answered(self.config.attempts, "clear_named", || self.session.execute_unpaged(clear, &values)).await?;
        Ok(())
    }
}
