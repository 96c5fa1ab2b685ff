//! Finds the places in a session that could contain the user's id, and returns them as templates for `subject`. Ids are
//! preferred to e-mail addresses.

use crate::json::Value;
use crate::session::subject::placeholder;

/// The depth to which a session is searched. Real sessions contain the user's id at a smaller depth.
const MAX_DEPTH: usize = 5;
/// The maximum number of candidates.
const MAX_CANDIDATES: usize = 4;

/// Paths that frameworks themselves write. They precede all other paths.
const FRAMEWORK_PATHS: [&str; 6] = [
    "passport.user",
    "passport.user.id",
    "_auth_user_id",
    "_user_id",
    "warden.user.user.key/0/0",
    "session.userId",
];

/// Member names, as returned by [`fold`], that identify the user at any depth, the best first.
const USER_NAMES: [&str; 11] = [
    "oid",
    "sub",
    "userid",
    "useridentifier",
    "uid",
    "accountid",
    "memberid",
    "customerid",
    "userpk",
    "personid",
    "ownerid",
];

/// Names, as returned by [`fold`], of objects whose `id` is the user's id.
const USER_OBJECTS: [&str; 10] = [
    "user",
    "account",
    "currentuser",
    "auth",
    "identity",
    "profile",
    "member",
    "customer",
    "me",
    "data",
];

/// Templates for the subject of the session, the best first.
pub fn candidates(session: &Value) -> Vec<String> {
    if matches!(session, Value::String(text) if !text.is_empty()) || is_integer(session) {
        return vec!["{}".to_owned()];
    }
    let mut found = Vec::new();
    search(session, &mut Vec::new(), &mut found);
    found.sort_by_key(|(rank, depth, _)| (*rank, *depth));
    let mut templates: Vec<String> = found.into_iter().map(|(.., template)| template).collect();
    templates.dedup();
    templates.truncate(MAX_CANDIDATES);
    templates
}

fn search(value: &Value, path: &mut Vec<String>, found: &mut Vec<(usize, usize, String)>) {
    match value {
        Value::Object(members) if path.len() < MAX_DEPTH => {
            for (name, value) in members.iter() {
                path.push(name.to_owned());
                search(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) if path.len() < MAX_DEPTH => {
            // Search only the first item. In Devise's key, `[[ID], SALT]`, it contains the user's id.
            if let Some(first) = items.first() {
                path.push("0".to_owned());
                search(first, path, found);
                path.pop();
            }
        }
        Value::String(text) if !text.is_empty() => add(path, found),
        number if is_integer(number) => add(path, found),
        _ => {}
    }
}

fn add(path: &[String], found: &mut Vec<(usize, usize, String)>) {
    if let Some(rank) = rank(path) {
        found.push((rank, path.len(), placeholder(path)));
    }
}

fn is_integer(value: &Value) -> bool {
    matches!(value, Value::Number(number) if number.is_i64() || number.is_u64())
}

/// The rank of a path, where a lower rank is better; `None` if the path does not name a user.
fn rank(path: &[String]) -> Option<usize> {
    let last = path.last()?;
    let joined = path.join(".");
    let slashed = path.join("/");
    if FRAMEWORK_PATHS
        .iter()
        .any(|known| joined == *known || slashed == *known)
        || (path.len() == 1 && last.starts_with("login_web_"))
    {
        return Some(0);
    }
    // Skip members that users can write themselves, ids that other identity providers assigned, and the cookie settings
    // and flash messages of a session.
    if path[..path.len() - 1].iter().any(|name| {
        ["user_metadata", "identities", "firebase", "cookie", "flash"].contains(&name.as_str())
    }) {
        return None;
    }
    let name = fold(last);
    if let Some(position) = USER_NAMES.iter().position(|known| *known == name) {
        return Some(1 + position);
    }
    let parent = path.len().checked_sub(2).map(|index| fold(&path[index]));
    let inside_user = parent.is_some_and(|parent| USER_OBJECTS.contains(&parent.as_str()));
    match name.as_str() {
        "id" | "uuid" | "pk" if inside_user => Some(20),
        "user" | "member" | "account" if path.len() == 1 => Some(21),
        "id" if path.len() == 1 => Some(30),
        "username" | "login" | "preferredusername" => Some(40),
        "email" | "mail" | "emailaddress" => Some(50),
        _ => None,
    }
}

/// Folds `user_id`, `userId` and `user-id` to the same name.
fn fold(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_rank_framework_paths_first_and_email_addresses_last() {
        for (session, want) in [
            (r#"{"email":"a@b.c","sub":"u1"}"#, &["{sub}", "{email}"][..]),
            (
                r#"{"passport":{"user":"7"},"views":3,"cookie":{"path":"/"}}"#,
                &["{passport.user}"],
            ),
            (
                r#"{"user":{"id":7,"email":"a@b.c"}}"#,
                &["{user.id}", "{user.email}"],
            ),
            (r#"{"userId":"u"}"#, &["{userId}"]),
            (r#"{"oid":"o","sub":"s","tid":"t"}"#, &["{oid}", "{sub}"]),
            (
                r#"{"warden.user.user.key":[[7],"$2a$12$salt"]}"#,
                &["{/warden.user.user.key/0/0}"],
            ),
            (r#"{"sub":"s","user_metadata":{"sub":"evil"}}"#, &["{sub}"]),
            ("7", &["{}"]),
            (r#"{"views":3}"#, &[]),
        ] {
            let session = Value::parse(session.as_bytes()).expect("JSON");
            assert_eq!(candidates(&session), want, "{session:?}");
        }
    }
}
