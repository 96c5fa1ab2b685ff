//! Secrets, which are given as a value or in a file and are never printed, and the checks for weak and damaged secrets.

mod damage;

use std::fmt;
use std::io;
use std::path::Path;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use damage::{Damage, damage};

const REDACTED: &str = "[REDACTED]";

/// The bytes of a secret. `Debug` and `Serialize` print a placeholder.
///
/// The memory is not wiped on drop, because the keys derived from it and the environment variables that a reload reads
/// again stay in memory as long as the process runs. `hardening.rs` protects them: it disables core dumps and, on
/// Linux, keeps other unprivileged processes from reading the process's memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for cryptographic use only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret in a file, or the message if the file cannot be read. One trailing line break (LF or CR LF), which
    /// editors and `echo` add, is removed.
    pub(crate) fn from_file(path: &Path, content: io::Result<Vec<u8>>) -> Result<Self, String> {
        if path.as_os_str().is_empty() {
            return Err(
                "the file name is empty: name a file, or remove the key or variable".to_owned(),
            );
        }
        let mut bytes = content.map_err(|error| cannot_read(path, &error))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Ok(Self(bytes))
    }

    /// Why the secret is weak; `None` if no weakness is known.
    pub fn weakness(&self) -> Option<&'static str> {
        let text = self.lower_case_text();
        if let Some(unfilled) = self.unfilled() {
            Some(unfilled)
        } else if is_published_example(&text) {
            Some("is an example from documentation")
        } else if is_file_path(&text) {
            Some("is the name of a file: use the key that ends in _file")
        } else if is_repeated(self.expose()) {
            Some("repeats a pattern of 1 to 8 bytes")
        } else if self.0.len() < 16 {
            Some("is shorter than 16 bytes")
        } else {
            None
        }
    }

    /// Why this is not a real secret: it is empty, is a known placeholder, or has the form of a placeholder, such as
    /// `<…>`. `None` if it may be a real secret.
    pub fn unfilled(&self) -> Option<&'static str> {
        let is_unfilled = || is_unfilled(&self.lower_case_text());
        self.placeholder()
            .or_else(|| is_unfilled().then_some("is still a placeholder"))
    }

    fn lower_case_text(&self) -> String {
        let text = String::from_utf8_lossy(self.expose());
        text.trim().to_ascii_lowercase()
    }

    /// Why this is not a real secret: it is empty or a known placeholder. `None` for any other value, also if it has
    /// the form of a placeholder.
    pub fn placeholder(&self) -> Option<&'static str> {
        const PLACEHOLDERS: [&str; 12] = [
            "changeme",
            "change-me",
            "change_me",
            "secret",
            "password",
            "placeholder",
            "your-client-secret",
            "your_client_secret",
            "your-secret",
            "your_secret",
            "rollout-client-secret",
            "rollout_client_secret",
        ];
        let text = self.lower_case_text();
        let bare = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if text.is_empty() {
            Some("is empty")
        } else if PLACEHOLDERS.contains(&bare) || bare.starts_with("changeme") {
            Some("is still a placeholder")
        } else {
            None
        }
    }
}

/// Whether the text has the form of a placeholder that should have been replaced by a secret. The text must be in lower
/// case.
fn is_unfilled(text: &str) -> bool {
    const BRACKETS: [(&str, &str); 5] = [
        ("<", ">"),
        ("[", "]"),
        ("${", "}"),
        ("$(", ")"),
        ("{{", "}}"),
    ];
    const PHRASES: [&str; 18] = [
        "of your app",
        "your client id",
        "client id from",
        "client id here",
        "your client secret",
        "your secret",
        "your rollout",
        "rollout dashboard",
        "client secret from",
        "client secret here",
        "secret goes here",
        "paste your",
        "paste the",
        "insert your",
        "replace me",
        "replace this",
        "change me",
        "placeholder",
    ];
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let words = words.collect::<Vec<_>>().join(" ");
    BRACKETS.iter().any(|(open, close)| text.starts_with(open) && text.ends_with(close))
        // A shell variable that was not expanded, a URL, a JavaScript expression, or only `.`, `…`, `x`, `*` and `?`.
        || text.starts_with('$') && text.contains("secret")
        || text.starts_with("https://")
        || text.starts_with("process.env")
        || text.chars().all(|c| matches!(c, '.' | '…' | 'x' | '*' | '?'))
        || PHRASES.iter().any(|phrase| words.contains(phrase))
}

/// Whether the text is an example from the documentation of a framework, a library or this service. The text must be in
/// lower case.
fn is_published_example(text: &str) -> bool {
    const EXAMPLES: [&str; 31] = [
        // Express, cookie-session, koa-session
        "keyboard cat",
        "key1",
        "key2",
        "some secret hurr",
        // Flask and FastAPI
        "dev",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        // Laravel
        "somerandomstring",
        // React Router and Remix
        "s3cret1",
        "s3cret",
        "r3m1xr0ck5",
        // iron-session, hapi, Fastify
        "complex_password_at_least_32_characters_long",
        "password-should-be-32-characters",
        "the-password-must-be-at-least-32-characters-long",
        "password_must_be_at_least_32_characters_long",
        "averylogphrasebiggerthanthirtytwochars",
        "a secret with minimum length of 32 characters",
        "my-secret",
        // Better Auth
        "better-auth-secret-123456789",
        "better-auth-secret-12345678901234567890",
        // JSON Web Tokens: jsonwebtoken, jwt.io, Supabase's local stack
        "shhhhh",
        "shhhhhhared-secret",
        "your-256-bit-secret",
        "your-384-bit-secret",
        "your-512-bit-secret",
        "a-string-secret-at-least-256-bits-long",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        // This service's own examples
        "6b7d3c1f0a9e8d2c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4",
        "b1946ac92492d234",
        "base64:mdeymzq1njc4owfiy2rlzjaxmjm0nty3odlhymnkzwy=",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ];
    EXAMPLES.contains(&text) || text.starts_with("django-insecure-")
}

/// Whether the text is the path of a secret's file instead of the secret. The text must be in lower case. A leading
/// slash alone does not make it a path, because base64 may also begin with a slash.
fn is_file_path(text: &str) -> bool {
    let is_known = ["/etc/", "/run/", "/var/", "./"]
        .iter()
        .any(|folder| text.starts_with(folder));
    is_known || text.starts_with('/') && text.contains("secret")
}

/// Whether the bytes repeat one unit of 1 to 8 bytes; the last repetition may be incomplete.
fn is_repeated(bytes: &[u8]) -> bool {
    (1..=8).any(|unit| bytes.len() > unit && bytes[unit..] == bytes[..bytes.len() - unit])
}

/// The message about a secret's file that cannot be read. It contains the path only if the path is clearly not a secret
/// that was set under the wrong key.
fn cannot_read(path: &Path, error: &io::Error) -> String {
    let text = path.to_string_lossy();
    if !(is_in_existing_folder(path)
        || is_file_path(&text.to_ascii_lowercase())
        || has_form_of_path(&text))
    {
        return format!(
            "cannot read the file: {error}. The key expects the name of a file, not the secret"
        );
    }
    let advice = match error.kind() {
        io::ErrorKind::NotFound => ". Is it mounted there?",
        io::ErrorKind::IsADirectory => {
            ". Name the file in this directory. Docker also creates a directory if the file to mount does not exist"
        }
        io::ErrorKind::PermissionDenied => ". Is this process's user allowed to read it?",
        _ => "",
    };
    format!("cannot read {}: {error}{advice}", path.display())
}

/// Whether the path's folder exists. The root folder does not count, because base64 may begin with a slash.
fn is_in_existing_folder(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder.file_name().is_some() && folder.is_dir())
}

/// Whether the text looks like an absolute path below a folder, with names that a person would choose. Base64 may
/// contain slashes too, but some part between them is usually too long or too random.
fn has_form_of_path(text: &str) -> bool {
    let Some((folder, _)) = text.strip_prefix('/').and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let is_random = |name: &str| {
        let has = |is: fn(&u8) -> bool| name.as_bytes().iter().any(&is);
        name.contains(['+', '='])
            || name.len() > 64
            || name.len() >= 12
                && has(u8::is_ascii_uppercase)
                && has(u8::is_ascii_lowercase)
                && has(u8::is_ascii_digit)
    };
    !folder.is_empty() && !text.split('/').any(is_random)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// `Visitor` methods that refuse values of these types. Serde's own message would quote the value, which may be a
/// secret.
macro_rules! refuse {
    ($text:expr; $($visit:ident: $type:ty),+) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(E::custom($text))
        })+
    };
}
pub(crate) use refuse;

struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret as a string in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    /// Accepts the content of a file.
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Secret, E> {
        Ok(Secret::new(bytes))
    }

    refuse!("a secret must be a string in quotes, not a number"; visit_i64: i64, visit_u64: u64, visit_f64: f64);
    refuse!("a secret must be a string in quotes, not true or false"; visit_bool: bool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_redacted_in_debug_json_and_type_errors() {
        let secret = Secret::new("hunter2hunter2hunter2");
        assert_eq!(format!("{secret:?}"), "[REDACTED]");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[REDACTED]\"");
        let error = serde_json::from_str::<Secret>("[123454321]")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("123454321"), "{error}");
        let error = serde_json::from_str::<Secret>("123454321")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("123454321"), "{error}");
    }

    #[test]
    fn placeholders_file_names_repeated_patterns_and_short_values_are_weak_secrets() {
        for (secret, weak) in [
            ("", true),
            (" \n\t                    ", true),
            ("changeme", true),
            ("ChangeMe-changeme-changeme", true),
            ("<your-client-secret>", true),
            ("<paste your client secret>", true),
            ("your-client-secret-from-rollout", true),
            ("from your Rollout dashboard", true),
            ("YOUR_ROLLOUT_CLIENT_SECRET_VALUE", true),
            ("${ROLLOUT_CLIENT_SECRET}", true),
            ("/run/secrets/rollout_client_secret", true),
            ("$ROLLOUT_CLIENT_SECRET", true),
            ("$(openssl rand -hex 32)", true),
            ("django-insecure-)x2g8_l4&j0h@k=q", true),
            ("aaaaaaaaaaaaaaaaaaaaaaaa", true),
            ("abcd1234abcd1234abcd1234", true),
            ("abcd1234abcd1234abcd12", true),
            ("abcd12345abcd12345abcd12345", false),
            ("/3Zx0dY8vQ1kT5bN+7wLrA==", false),
            ("fifteen-bytes-1", true),
            ("sixteen-bytes-12", false),
        ] {
            assert_eq!(Secret::new(secret).weakness().is_some(), weak, "{secret:?}");
        }
    }
}
