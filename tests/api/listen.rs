//! Tests of the addresses on which the service listens: `server.listen`, `PORT`, both address families, and the command
//! `health`. Also tests misspelled variables, and changes of the log settings.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;

use crate::binary::{Process, binary, good_session, run};
use crate::configuration::load_variables;
use crate::helpers::client;

/// The address that these environment variables configure, and the source of its port.
fn listen(variables: &[(&str, &str)]) -> Result<(String, String), String> {
    load_variables(variables).map(|settings| {
        (
            settings.server.restart.listen.to_string(),
            settings.port_from,
        )
    })
}

#[test]
fn port_is_taken_from_server_listen_or_else_from_the_variable_port() {
    const LISTEN: &str = "ROLLOUT__SERVER__LISTEN";
    for (variables, address, from) in [
        (&[][..], "[::]:8080", "default"),
        (&[("PORT", "9000")], "[::]:9000", "PORT"),
        (&[("PORT", "")], "[::]:8080", "default"),
        (
            &[(LISTEN, "127.0.0.1:9001"), ("PORT", "9000")],
            "127.0.0.1:9001",
            LISTEN,
        ),
        (&[(LISTEN, "9001"), ("PORT", "many")], "[::]:9001", LISTEN),
        (&[(LISTEN, ":9001")], "[::]:9001", LISTEN),
        (&[(LISTEN, "0.0.0.0:9001")], "0.0.0.0:9001", LISTEN),
        (
            &[("ROLLOUT_CONFIG", "server.listen = 9002")],
            "[::]:9002",
            "ROLLOUT_CONFIG",
        ),
        (
            &[("ROLLOUT_CONFIG", "server.listen = \"[::1]:9002\"")],
            "[::1]:9002",
            "ROLLOUT_CONFIG",
        ),
    ] {
        let want = (address.to_owned(), from.to_owned());
        assert_eq!(listen(variables), Ok(want), "{variables:?}");
    }
    for (variables, key) in [
        (&[("PORT", "many")][..], "PORT: must be a port"),
        (&[("PORT", "tcp://10.0.0.1:80")], "PORT: must be a port"),
        (&[("PORT", "70000")], "PORT: must be a port"),
        (&[("PORT", "-1")], "PORT: must be a port"),
        (
            &[("PORT", "8081")],
            "PORT: is 8081, the port of server.admin_listen",
        ),
        (&[(LISTEN, "8081")], "server.admin_listen: must differ"),
        (&[(LISTEN, "70000")], "server.listen: must be a port"),
        (&[(LISTEN, "localhost:80")], "server.listen: must be a port"),
        (&[(LISTEN, "+80")], "server.listen: must be a port"),
        (
            &[("ROLLOUT__SERVER__ADMIN_LISTEN", "8091")],
            "server.admin_listen: must be an IP address",
        ),
    ] {
        let report = listen(variables).expect_err(key);
        assert!(report.starts_with(key), "{variables:?}: {report}");
    }
    assert!(
        listen(&[
            ("PORT", "8081"),
            ("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:9081")
        ])
        .is_ok()
    );
}

/// A service that trusts a header from the peer 127.0.0.1 and listens on all addresses.
fn on_all_addresses() -> std::process::Command {
    let mut command = binary(&["serve"]);
    command
        .env_remove("ROLLOUT__SERVER__LISTEN")
        .env("PORT", "0")
        .env("ROLLOUT__SESSION__EXTRACTORS", "proxy,cookie,bearer")
        .env("ROLLOUT__EXTRACTORS__PROXY__KIND", "trusted_header")
        .env("ROLLOUT__EXTRACTORS__PROXY__HEADER", "X-User")
        .env("ROLLOUT__EXTRACTORS__PROXY__TRUSTED_PROXIES", "127.0.0.1");
    command
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[tokio::test]
async fn service_listens_on_ipv4_and_ipv6_and_trusts_an_ipv4_peer_by_its_ipv4_address() {
    let mut process = Process::start(&mut on_all_addresses());
    let port = process.address.port();
    let mut hosts = vec![(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 200)];
    if has_ipv6() {
        assert!(process.address.is_ipv6(), "{}", process.address);
        // The peer ::1 is not a trusted proxy.
        hosts.push(((Ipv6Addr::LOCALHOST, port).into(), 401));
    }
    for (host, want) in hosts {
        let request = client().post(format!("http://{host}/rollout/token"));
        let answer = request.header("x-user", "ann").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), want, "{host}");
    }
    process.line_with("token.issued");
}

#[test]
fn startup_log_line_has_the_address_as_its_first_field_and_the_source_of_the_port() {
    for (command, from) in [
        (&mut on_all_addresses(), "PORT"),
        (&mut binary(&["serve"]), "ROLLOUT__SERVER__LISTEN"),
    ] {
        let process = Process::start(command);
        let line = process.start_line().to_owned();
        assert!(
            line.contains("\"message\":\"listening\",\"address\":\""),
            "{line}"
        );
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["port_from"], from, "{line}");
    }
    // `dev` ignores `PORT`, so its port is the same in every terminal.
    let (code, _, err) = run(binary(&["dev"])
        .env_remove("ROLLOUT__SERVER__LISTEN")
        .env("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:8080")
        .env("PORT", "many"));
    assert_eq!(code, Some(2));
    assert!(err.contains("server.admin_listen: must differ"), "{err}");
    assert!(!err.contains("PORT"), "{err}");
}

#[test]
fn failed_health_check_names_the_service_address_and_the_source_of_its_port() {
    let process = Process::start(&mut on_all_addresses());
    let port = process.address.port().to_string();
    let health = || {
        let mut command = binary(&["health"]);
        command
            .env_remove("ROLLOUT__SERVER__LISTEN")
            .env("PORT", &port);
        command
    };
    assert_eq!(run(&mut health()), (Some(0), String::new(), String::new()));
    drop(process);
    let (code, _, err) = run(&mut health());
    assert_eq!(code, Some(1));
    for want in [
        &format!("cannot reach the service at 127.0.0.1:{port}"),
        "source of its port: PORT",
    ] {
        assert!(err.contains(want), "{want} in {err}");
    }

    // `health` reads the same configuration file as `serve`.
    let file = tempfile::NamedTempFile::new().unwrap();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    std::fs::write(file.path(), format!("server.listen = \"{free}\"")).unwrap();
    let path = file.path().to_str().unwrap();
    let (code, _, err) =
        run(binary(&["--config", path, "health"]).env_remove("ROLLOUT__SERVER__LISTEN"));
    assert_eq!(code, Some(1));
    assert!(
        err.contains(&free.to_string()) && err.contains(&format!("port: {path}")),
        "{err}"
    );
}

#[test]
fn misspelled_variable_is_a_warning_and_a_variable_of_an_app_is_not() {
    let (code, out, err) = run(binary(&["check-config"])
        .env("ROLLOUT_SERVER_LISTEN", "127.0.0.1:1")
        .env("rollout_client_id", "hunter2")
        .env("ROLLOUT_EXTRACTORS_WEB_KIND", "jwt")
        .env("ROLLOUT_APP_KEY", "hunter2")
        .env("ROLLOUT_TOKEN_SERVICE_HOST", "10.0.0.1")
        .env("ROLLOUT_TOKEN_PORT_8080_TCP", "tcp://10.0.0.1:8080"));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "The configuration is valid.\n")
    );
    let mut lines: Vec<&str> = err.lines().collect();
    lines.sort_unstable();
    let [extractors, server, client] = lines.as_slice() else {
        panic!("{err}")
    };
    for (line, want) in [
        (
            extractors,
            "ROLLOUT_EXTRACTORS_WEB_KIND: is not a variable of this service: did you mean ROLLOUT__EXTRACTORS__WEB",
        ),
        (
            server,
            "ROLLOUT_SERVER_LISTEN: is not a variable of this service: did you mean ROLLOUT__SERVER__LISTEN?",
        ),
        (
            client,
            "rollout_client_id: is not a variable of this service: did you mean ROLLOUT_CLIENT_ID?",
        ),
    ] {
        assert!(line.starts_with(want), "{line}");
    }
    assert!(!err.contains("hunter2"), "{err}");
}

/// The service polls the file; the test sends no signal.
#[tokio::test]
async fn changed_log_level_and_format_apply_without_a_restart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |log: &str| {
        std::fs::write(
            file.path(),
            format!("[reload]\npoll_interval = \"50ms\"\n[log]\n{log}"),
        )
        .unwrap();
    };
    write("level = \"info\"");
    let path = file.path().to_str().unwrap();
    let mut process = Process::start(&mut binary(&["--config", path, "serve"]));
    let (url, session) = (process.url(), good_session());
    let ask = || client().post(&url).bearer_auth(&session).send();
    ask().await.unwrap();
    assert!(process.line_with("token.issued").starts_with('{'));

    write("format = \"pretty\"");
    let line = process.line_with("config_reloaded");
    assert!(line.contains("INFO") && !line.starts_with('{'), "{line}");
    ask().await.unwrap();
    let line = process.line_with("token.issued");
    assert!(line.contains("INFO") && !line.starts_with('{'), "{line}");

    write("format = \"gcp\"");
    assert!(
        process
            .line_with("config_reloaded")
            .contains("\"severity\":\"INFO\"")
    );
    ask().await.unwrap();
    assert!(
        process
            .line_with("token.issued")
            .contains("\"httpRequest\"")
    );

    // At level `error`, `token.issued` is not logged, so the next line in the log is that of the next reload.
    write("level = \"error\"");
    while !process.reloads_metric().await.contains("} 3") {}
    ask().await.unwrap();
    write("level = \"debug\"");
    let line = process.line_with("");
    assert!(line.contains("config_reloaded"), "{line}");
}
