//! The names that a statement may use, for completion: queried through the connection, so that a server's names are
//! known too.

use std::collections::BTreeMap;

use windrow_core::Result;

use crate::connection::{Connection, texts};

const COLUMNS: &str = "SELECT table_schema, table_name, column_name \
    FROM information_schema.columns WHERE table_schema IN ('public', 'windrow') \
    ORDER BY table_schema, table_name, ordinal_position";

const FUNCTIONS: &str = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY 1";

/// The names that a statement may use.
#[derive(Debug, Default, Clone)]
pub(crate) struct Vocabulary {
    /// Streams, views and tables with their columns, quoted as needed.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
    /// Functions.
    pub(crate) functions: Vec<String>,
}

impl Vocabulary {
    /// Queries tables and columns; functions too if none are known.
    ///
    /// # Errors
    /// When the connection does not respond.
    pub(crate) async fn refresh(&mut self, connection: &Connection) -> Result<()> {
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in texts(connection, COLUMNS).await? {
            let [schema, table, column] = row.as_slice() else { continue };
            let table = match schema.as_str() {
                "public" => written(table),
                schema => format!("{schema}.{}", written(table)),
            };
            tables.entry(table).or_default().push(written(column));
        }
        self.tables = tables;
        if self.functions.is_empty() {
            let rows = texts(connection, FUNCTIONS).await?;
            self.functions = rows.into_iter().flatten().filter(|f| is_plain(f)).collect();
        }
        Ok(())
    }
}

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_lowercase() || c == '_';
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

/// Returns a name as written in SQL.
fn written(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must() {
        assert_eq!(written("flights_2"), "flights_2");
        assert_eq!(written("Bids"), "\"Bids\"");
        assert_eq!(written("2x"), "\"2x\"");
        assert_eq!(written("a\"b"), "\"a\"\"b\"");
    }
}
