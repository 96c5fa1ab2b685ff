//! Tests the lines that commands print on a terminal while they wait. The commands run on a real pseudo-terminal, and
//! the backends delay their responses until the line has been printed.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use tokio::sync::watch;

use crate::backend::{Backend, json as json_answer};
use crate::binary::{FAR, binary, good_session, run};
use crate::helpers::{client_variables, file_of};
use crate::idp::Idp;

/// A command whose standard error, and optionally standard input, is a terminal.
struct OnTerminal {
    child: Child,
    terminal: File,
    shown: String,
}

impl OnTerminal {
    fn start(mut command: Command, reads_terminal: bool) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let open = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            File::from(rustix::fs::open(&name, flags, Mode::empty()).unwrap())
        };
        command.stdout(Stdio::piped()).stderr(open());
        if reads_terminal {
            command.stdin(open());
        }
        let child = command.spawn().unwrap();
        Self {
            child,
            terminal: terminal.into(),
            shown: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.shown.contains(text) {
            let count = self.terminal.read(&mut bytes).unwrap_or(0);
            assert!(
                count > 0,
                "the command ended without printing {text:?}; it printed {}",
                self.shown
            );
            self.shown += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// The command's standard output, and everything that it wrote to the terminal.
    fn end(mut self) -> (String, String) {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        self.child.wait().unwrap();
        let mut bytes = [0; 1024];
        // Reading from the terminal fails once no process has it open.
        while let Ok(count @ 1..) = self.terminal.read(&mut bytes) {
            self.shown += &String::from_utf8_lossy(&bytes[..count]);
        }
        (out, self.shown)
    }
}

/// A backend that sends this response to each request once the test allows it.
async fn held(body: &'static str) -> (Backend, watch::Sender<bool>) {
    Backend::held(move |_| json_answer(body)).await
}

fn with_client(arguments: &[&str]) -> Command {
    let mut command = binary(arguments);
    command.env_clear().envs(client_variables());
    command
}

fn endpoint_section(url: &str) -> String {
    format!(
        "session.extractors = ['app']\nserver.request_timeout = '10s'\n[extractors.app]\nkind = 'session_endpoint'\n\
         url = '{url}?key=s3cr3t'\ncookies = ['sid']\ntimeout = '9s'\nsubject = '{{id}}'"
    )
}

#[tokio::test]
async fn slow_backend_is_named_on_a_terminal_after_a_second() {
    const ME: &str = r#"{"id":"ann","keys":[]}"#;
    let jwt = Idp::start()
        .await
        .token(&json!({"iss": "https://id.example", "sub": "ann", "exp": FAR}));
    for case in [
        "doctor",
        "doctor of a backend",
        "credentials",
        "explain",
        "detect",
    ] {
        let body = match case {
            "doctor" | "credentials" => "[]",
            _ => ME,
        };
        let (backend, may_answer) = held(body).await;
        let (api, at_once) = held("[]").await;
        at_once.send_replace(true);
        let file = file_of(&endpoint_section(&backend.url("/me")));
        let config = file.path().to_str().unwrap();
        let (url, api) = (backend.url("/api"), api.url("/api"));
        let set = format!("jwks_url={}?key=s3cr3t", backend.url("/jwks"));
        let header = format!("Authorization: Bearer {jwt}");
        let (arguments, line) = match case {
            "doctor" => (
                vec!["doctor", "--base-url", &url],
                format!("waiting for Rollout at {url}/credentials (1 s of at most 10 s)"),
            ),
            "doctor of a backend" => (
                vec!["doctor", "--base-url", &api, "--config", config],
                format!(
                    "waiting for endpoint {} (1 s of at most 9 s)",
                    backend.url("/me")
                ),
            ),
            "credentials" => (
                vec!["credentials", "ann", "--base-url", &url],
                format!("waiting for Rollout at {url}/credentials (1 s of at most 10 s)"),
            ),
            "explain" => (
                vec!["explain", "--config", config, "-b", "sid=x"],
                format!(
                    "waiting for endpoint {} (1 s of at most 9 s)",
                    backend.url("/me")
                ),
            ),
            _ => (
                vec![
                    "detect",
                    "--set",
                    &set,
                    "--set",
                    "allow_any_audience=true",
                    "-H",
                    &header,
                ],
                format!(
                    "waiting for key set {} (1 s of at most 3 s)",
                    backend.url("/jwks")
                ),
            ),
        };
        let mut command = OnTerminal::start(with_client(&arguments), false);
        let (out, shown) = tokio::task::spawn_blocking(move || {
            command.wait_for(&line);
            may_answer.send_replace(true);
            command.end()
        })
        .await
        .unwrap();
        assert_eq!(shown.matches("waiting for").count(), 1, "{case}: {shown}");
        assert!(!out.contains("waiting for"), "{case}: {out}");
        assert!(!(out + &shown).contains("s3cr3t"), "{case}: {shown}");
    }
}

#[tokio::test]
async fn wait_is_not_announced_if_standard_error_is_not_a_terminal() {
    let (backend, _held) = held("{}").await;
    let section = endpoint_section(&backend.url("/me")).replace("'9s'", "'1500ms'");
    let file = file_of(&section);
    let mut command = with_client(&[
        "explain",
        "--config",
        file.path().to_str().unwrap(),
        "-b",
        "sid=x",
    ]);
    let (code, out, err) = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.ends_with("answer: 503 session_backend_unavailable\n"),
        "{out}"
    );
}

#[test]
fn prompt_is_printed_if_standard_input_is_a_terminal() {
    let session = good_session();
    let token = crate::helpers::sign_session(&json!({"sub": "x"}));
    let request = format!("Host: a\nAuthorization: Bearer {session}");
    for (arguments, what, typed, want) in [
        (
            &["explain", "--raw", "-"][..],
            "reading the request: paste it here",
            &request,
            "answer: 200, a token",
        ),
        (
            &["detect", "--raw", "-"],
            "reading the request: paste it here",
            &request,
            "header:authorization",
        ),
        (
            &["inspect", "-"],
            "reading the token: paste it here",
            &token,
            "this is not a token for Rollout",
        ),
    ] {
        let mut command = OnTerminal::start(binary(arguments), true);
        command.wait_for(what);
        command.type_in(&format!("{typed}\n\u{4}"));
        let (out, shown) = command.end();
        assert!(
            out.contains(want) || shown.contains(want),
            "{arguments:?}\n{out}\n{shown}"
        );
    }
}
