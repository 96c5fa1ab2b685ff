//! Translates the configured query into the parameter syntax of its database.
//! Running it is in `database.rs`.

use super::database::Dialect;
use crate::session::formats::payload::MAX_STORED;

/// A query in the syntax of its database.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// In the order in which they are bound.
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `$1`: the session's key.
    Key,
    /// `$2`: the service's clock, in Unix seconds.
    Now,
}

impl Statement {
    /// Parses a query with `$1` and optionally `$2`. `PostgreSQL` supports this syntax; for the others each parameter
    /// becomes `?`.
    ///
    /// # Errors
    /// What is wrong with the query.
    pub fn read(query: &str, dialect: Dialect) -> Result<Self, &'static str> {
        let query = query.trim().trim_end_matches(';').trim_end();
        let pieces = pieces(query)?;
        let mut parameters: Vec<_> = pieces
            .iter()
            .filter_map(|(_, parameter)| *parameter)
            .collect();
        if !parameters.contains(&Parameter::Key) {
            return Err("must find the session by $1, the session's key");
        }
        if dialect == Dialect::Postgres {
            parameters = if parameters.contains(&Parameter::Now) {
                vec![Parameter::Key, Parameter::Now]
            } else {
                vec![Parameter::Key]
            };
            return Ok(Self {
                sql: query.to_owned(),
                parameters,
            });
        }
        let mut sql = String::new();
        for (text, parameter) in &pieces {
            sql.push_str(text);
            sql.push_str(parameter.map_or("", |_| "?"));
        }
        Ok(Self { sql, parameters })
    }

    /// The same query, limited to two rows: two are enough to detect that the key is ambiguous. `PostgreSQL` converts a
    /// row with columns of any types into JSON and cuts it one character after the longest accepted length.
    #[must_use]
    pub fn limited(self, dialect: Dialect) -> Self {
        let columns = match dialect {
            Dialect::Postgres => format!("left(row_to_json(found)::text, {})", MAX_STORED + 1),
            Dialect::MySql | Dialect::Sqlite => "*".to_owned(),
        };
        Self {
            sql: format!("SELECT {columns} FROM ({}) AS found LIMIT 2", self.sql),
            ..self
        }
    }
}

/// The query, split at its parameters: each text with the parameter that follows it.
///
/// Quoted text is skipped. Backslashes, comments and `;` are refused, because their meaning depends on the dialect.
fn pieces(query: &str) -> Result<Vec<(&str, Option<Parameter>)>, &'static str> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    let mut quote = None;
    for (at, c) in query.char_indices() {
        match (quote, c) {
            (_, '\\') => return Err("must not contain a backslash"),
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, ';') => return Err("must be one statement"),
            (None, '-') if query[at..].starts_with("--") => {
                return Err("must not contain comments");
            }
            (None, '/') if query[at..].starts_with("/*") => {
                return Err("must not contain comments");
            }
            (None, '$') => {
                let digits = query[at + 1..]
                    .bytes()
                    .take_while(u8::is_ascii_alphanumeric)
                    .count();
                let parameter = match &query[at + 1..at + 1 + digits] {
                    "1" => Parameter::Key,
                    "2" => Parameter::Now,
                    _ => {
                        return Err(
                            "must contain no parameters other than $1, the session's key, and $2, the time",
                        );
                    }
                };
                pieces.push((&query[begin..at], Some(parameter)));
                begin = at + 1 + digits;
            }
            (Some(_) | None, _) => {}
        }
    }
    if quote.is_some() {
        return Err("contains a quote that is not closed");
    }
    pieces.push((&query[begin..], None));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::Parameter::{Key, Now};
    use super::*;

    #[test]
    fn parameters_become_placeholders_of_the_dialect() {
        let query = "SELECT '$3', \"$1\", `$2` FROM t WHERE a > $2 AND k = $1 AND b < $2;";
        let postgres = Statement::read(query, Dialect::Postgres).unwrap();
        assert_eq!(postgres.sql, query.trim_end_matches(';'));
        assert_eq!(postgres.parameters, [Key, Now]);
        for dialect in [Dialect::MySql, Dialect::Sqlite] {
            let statement = Statement::read(query, dialect).unwrap();
            assert_eq!(
                statement.sql,
                "SELECT '$3', \"$1\", `$2` FROM t WHERE a > ? AND k = ? AND b < ?"
            );
            assert_eq!(statement.parameters, [Now, Key, Now]);
        }
        let doubled =
            Statement::read("SELECT 'it''s $2' FROM t WHERE k = $1", Dialect::MySql).unwrap();
        assert_eq!(doubled.parameters, [Key]);
    }

    #[test]
    fn query_without_key_or_with_unclear_quoting_is_refused() {
        for query in [
            "",
            "SELECT 1",
            "SELECT * FROM t WHERE k = '$1'",
            "SELECT * FROM t WHERE k = $1 AND a = $3",
            "SELECT * FROM t WHERE k = $10",
            "SELECT * FROM t WHERE k = $1x",
            "SELECT * FROM t WHERE k = $1 AND a = $$b$$",
            "SELECT * FROM t WHERE k = $1 -- by key",
            "SELECT * FROM t /* all */ WHERE k = $1",
            "SELECT * FROM t WHERE k = $1; DROP TABLE t",
            "SELECT * FROM t WHERE k = $1 AND a = '\\'' OR $1",
            "SELECT * FROM t WHERE k = $1 AND a = 'b",
        ] {
            assert!(
                Statement::read(query, Dialect::Postgres).is_err(),
                "{query}"
            );
        }
    }
}
