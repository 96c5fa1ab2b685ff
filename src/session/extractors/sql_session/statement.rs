//! Translates the configured query into its database's parameter syntax, and fills a preset's query with the app's
//! table and column names. `database.rs` runs the query.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use super::database::Dialect;
use crate::session::formats::hex;
use crate::session::formats::payload::MAX_STORED;

/// A query in the syntax of its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// The parameters, in the order in which they are bound.
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `$1`: the key of the session.
    Key,
    /// `$2`: the current time of the service's clock, in Unix seconds.
    Now,
}

/// A query and its alternatives, because the tools of one library create different schemas. The first query that the
/// database accepts is tried first from then on.
#[derive(Debug)]
pub struct Alternatives {
    statements: Vec<Statement>,
    accepted: AtomicUsize,
}

impl Alternatives {
    pub fn new(statements: Vec<Statement>) -> Self {
        Self {
            statements,
            accepted: AtomicUsize::new(0),
        }
    }

    /// The statements with their numbers, starting with the accepted one.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Statement)> {
        let accepted = self.accepted.load(Ordering::Relaxed);
        let numbered = || self.statements.iter().enumerate();
        numbered().skip(accepted).chain(numbered().take(accepted))
    }

    pub fn accept(&self, number: usize) {
        self.accepted.store(number, Ordering::Relaxed);
    }
}

/// The names of the app's table and columns, if they differ from the preset's names.
#[derive(Debug)]
pub struct Names<'a> {
    pub table: Option<&'a str>,
    /// The app's column names, keyed by the preset's names.
    pub columns: &'a BTreeMap<String, String>,
}

impl Names<'_> {
    /// Fills a preset's query with the app's names. `{name}` becomes the name of a column, and `{table}` that of the
    /// table. `{as name}` adds `, column AS name` if the app's column has another name. In `{name:default}` and
    /// `{table:default}`, `default` is the name if the section does not set one; without `:default`, it is `name` or
    /// `table`.
    pub fn fill(&self, query: &str, dialect: Dialect) -> String {
        let (mut filled, mut rest) = (String::new(), query);
        while let Some((text, after)) = rest.split_once('{') {
            let (place, after) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(text);
            filled.push_str(&self.fill_one(place, dialect));
            rest = after;
        }
        filled + rest
    }

    fn fill_one(&self, place: &str, dialect: Dialect) -> String {
        let (is_alias, place) = place
            .strip_prefix("as ")
            .map_or((false, place), |name| (true, name));
        let (name, default) = place.split_once(':').unwrap_or((place, place));
        if name == "table" {
            let parts = self.table.unwrap_or(default).split('.');
            let parts: Vec<_> = parts.map(|part| dialect.quoted(part)).collect();
            return parts.join(".");
        }
        let column = self.columns.get(name).map_or(default, String::as_str);
        match (is_alias, column == name) {
            (false, _) => dialect.quoted(column),
            (true, true) => String::new(),
            (true, false) => format!(", {} AS {}", dialect.quoted(column), dialect.quoted(name)),
        }
    }
}

/// The names of the columns in a preset's query.
pub fn columns_of(query: &str) -> impl Iterator<Item = &str> {
    let places = query.split('{').skip(1);
    let places = places.filter_map(|piece| piece.split_once('}'));
    let names = places.map(|(place, _)| {
        let place = place.strip_prefix("as ").unwrap_or(place);
        place.split_once(':').map_or(place, |(name, _)| name)
    });
    names.filter(|name| *name != "table")
}

/// Whether the text can be quoted as a name in every dialect.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text
            .chars()
            .any(|c| c.is_control() || ['"', '\'', '`', '\\'].contains(&c))
}

impl Statement {
    /// Parses a query with `$1` and optionally `$2`. `PostgreSQL` supports this syntax; for other databases each
    /// parameter becomes `?`.
    ///
    /// # Errors
    /// If the query does not contain `$1`, or if [`pieces`] refuses it.
    pub fn read(query: &str, dialect: Dialect) -> Result<Self, &'static str> {
        let query = query.trim().trim_end_matches(';').trim_end();
        let pieces = pieces(query)?;
        let parameters: Vec<_> = pieces
            .iter()
            .filter_map(|(_, parameter)| *parameter)
            .collect();
        if !parameters.contains(&Parameter::Key) {
            return Err("must find the session by $1, the session's key");
        }
        if dialect == Dialect::Postgres {
            let mut used = vec![Parameter::Key, Parameter::Now];
            used.retain(|parameter| parameters.contains(parameter));
            return Ok(Self {
                sql: query.to_owned(),
                parameters: used,
            });
        }
        let mut sql = String::new();
        for (text, parameter) in &pieces {
            sql.push_str(text);
            sql.push_str(parameter.map_or("", |_| "?"));
        }
        Ok(Self { sql, parameters })
    }

    /// The same query, limited to two rows, which suffice to detect an ambiguous key. For `PostgreSQL`, it converts a
    /// row with columns of any type to JSON and truncates it one character beyond the maximum length. A second column
    /// contains the query's mark: see [`Self::has_mark`].
    #[must_use]
    pub fn limited(self, dialect: Dialect) -> Self {
        let columns = match dialect {
            Dialect::Postgres => format!(
                "left(row_to_json(found)::text, {}), '{}'",
                MAX_STORED + 1,
                mark(&self.sql)
            ),
            Dialect::MySql | Dialect::Sqlite => "*".to_owned(),
        };
        Self {
            sql: format!("SELECT {columns} FROM ({}) AS found LIMIT 2", self.sql),
            ..self
        }
    }

    /// Whether a row with this mark was found by this statement. A connection pooler in transaction mode may run the
    /// statement of another section, because all clients give their prepared statements the same names.
    pub fn has_mark(&self, mark: &str) -> bool {
        mark.len() == MARK_DIGITS && self.sql.contains(&format!("'{mark}' FROM"))
    }
}

const MARK_DIGITS: usize = 32;

/// The beginning of the query's SHA-256, in hexadecimal.
fn mark(sql: &str) -> String {
    let mut mark = hex::encode(digest(&SHA256, sql.as_bytes()));
    mark.truncate(MARK_DIGITS);
    mark
}

/// Splits the query at its parameters. Each piece consists of text and the parameter that follows it.
///
/// Quoted text contains no parameters. Backslashes, in quoted text too, and the comments `--` and `/*` are refused,
/// because their meaning depends on the dialect. `;` is refused, because the query must be one statement.
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
            (None, '-' | '/') if query[at..].starts_with("--") || query[at..].starts_with("/*") => {
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
    fn preset_query_is_filled_with_the_table_and_column_names_of_the_app() {
        let query = "SELECT *{as userId:user_id} FROM {table:session} WHERE {token} = $1 AND {expiresAt:expires_at} > 0";
        let columns = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, column)| ((*name).to_owned(), (*column).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let own = columns(&[("userId", "userId"), ("token", "session token")]);
        for (table, columns, dialect, want) in [
            (
                None,
                &BTreeMap::new(),
                Dialect::Postgres,
                r#"SELECT *, "user_id" AS "userId" FROM "session" WHERE "token" = $1 AND "expires_at" > 0"#,
            ),
            (
                Some("auth.sessions"),
                &own,
                Dialect::Postgres,
                r#"SELECT * FROM "auth"."sessions" WHERE "session token" = $1 AND "expires_at" > 0"#,
            ),
            (
                Some("sessions"),
                &own,
                Dialect::MySql,
                "SELECT * FROM `sessions` WHERE `session token` = $1 AND `expires_at` > 0",
            ),
        ] {
            let names = Names { table, columns };
            assert_eq!(names.fill(query, dialect), want);
        }
        let names: Vec<_> = columns_of(query).collect();
        assert_eq!(names, ["userId", "token", "expiresAt"]);
        for text in ["", "a\"b", "a`b", "a'b", "a\\b", "a\nb"] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn accepted_alternative_is_tried_first() {
        let statement = |sql: &str| Statement::read(sql, Dialect::Postgres).unwrap();
        let alternatives = Alternatives::new(
            ["SELECT 1 + $1", "SELECT 2 + $1", "SELECT 3 + $1"]
                .map(statement)
                .to_vec(),
        );
        let order = || {
            alternatives
                .iter()
                .map(|(number, _)| number)
                .collect::<Vec<_>>()
        };
        assert_eq!(order(), [0, 1, 2]);
        alternatives.accept(1);
        assert_eq!(order(), [1, 2, 0]);
    }

    #[test]
    fn query_without_the_key_or_with_dialect_dependent_syntax_is_refused() {
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
