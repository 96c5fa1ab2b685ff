#!/usr/bin/env python3
"""Compares the service with Express when both must look up the session in a real Redis, a real PostgreSQL or an HTTP
endpoint. `make bench` runs this; the table goes into docs/performance.md.

In a store, both read the same sessions, which the Express app created. The service and Express run on the first core;
the clients, the stores and the endpoint run on the second. Only the CPU time of the service or of Express is counted."""

import argparse
import contextlib
import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import servers
from compare import BINARY, write
from servers import PEER, PEERS, SERVICE, SESSION_SECRET, Server

SESSIONS = 1000
REDIS_AT_LEAST = 20
COOKIE = "connect.sid"

# Each request uses the next session.
ASK = """
local cookies, at = {%s}, 0
request = function() at = at %% #cookies + 1; return wrk.format("POST", nil, {["Cookie"] = cookies[at]}) end
"""


def beside(command, **options):
    """Runs a program on the clients' core until the block ends."""
    command = ["taskset", "-c", servers.CLIENT_CPU, *map(str, command)]
    return running(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options))


@contextlib.contextmanager
def running(process):
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(port):
    for _ in range(1000):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.01)
    sys.exit(f"nothing listens on port {port}")


@contextlib.contextmanager
def redis(scratch):
    """The URL of a Redis server without persistence."""
    port = servers.free_port()
    with beside(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", scratch]):
        wait_for(port)
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def postgres(scratch):
    """The URL of a PostgreSQL server. The server refuses to run as root, so root starts it as the user `postgres`."""
    programs = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
    data, port = pathlib.Path(scratch, "postgres"), servers.free_port()
    data.mkdir()
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    if user:
        os.chmod(scratch, 0o711)
        shutil.chown(data, "postgres")
    name = "postgres" if user else pwd.getpwuid(os.getuid()).pw_name
    initdb = [programs / "initdb", "--pgdata", data, "--username", name, "--auth", "trust"]
    subprocess.run(list(map(str, initdb)), check=True, capture_output=True, **user)
    server = [programs / "postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-k", data]
    with beside(server, **user):
        wait_for(port)
        yield f"postgres://{name}@127.0.0.1:{port}/postgres?sslmode=disable"


@contextlib.contextmanager
def endpoint(_):
    """The URL of an endpoint that returns the same user for every cookie. nginx serves it, so that the endpoint does not
    limit the servers."""
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as folder:
        answer = json.dumps({"sub": "user-1"})
        pathlib.Path(folder, "nginx.conf").write_text(
            f"""daemon off; worker_processes 1; pid {folder}/pid; error_log /dev/null;
            events {{}}
            http {{
              access_log off; keepalive_requests 1000000;
              client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
              uwsgi_temp_path {folder}; scgi_temp_path {folder};
              server {{
                listen 127.0.0.1:{port};
                location / {{ default_type application/json; return 200 '{answer}'; }}
              }}
            }}"""
        )
        with beside(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"]):
            wait_for(port)
            yield f"http://127.0.0.1:{port}/me"


def section(kind, **keys):
    prefix = f"ROLLOUT__EXTRACTORS__{kind.upper()}__"
    return {"ROLLOUT__SESSION__EXTRACTORS": kind} | {prefix + key.upper(): value for key, value in keys.items()}


KINDS = {
    "redis": (redis, "`redis_session`", "connect-redis", lambda url: section("redis_session", preset="connect-redis", url=url, cookie_secrets=SESSION_SECRET)),
    "postgres": (postgres, "`sql_session`, PostgreSQL", "connect-pg-simple", lambda url: section("sql_session", preset="connect-pg-simple", url=url, cookie_secrets=SESSION_SECRET)),
    "endpoint": (endpoint, "`session_endpoint`", "fetch", lambda url: section("session_endpoint", url=url, cookies=COOKIE, subject="{sub}")),
}


def log_in(server):
    """Starts `SESSIONS` sessions in the app, and yields their cookies."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(SESSIONS):
        connection.request("POST", "/login")
        answer = connection.getresponse()
        answer.read()
        yield answer.headers["Set-Cookie"].partition(";")[0]


def measure(kind, rounds, seconds):
    """CPU time per request of the service and of Express, and their ratio: medians of all rounds."""
    start, _, _, ours = KINDS[kind]
    with tempfile.TemporaryDirectory() as scratch, start(scratch) as url:
        both = {
            "express": Server(["node", "session.js"], PEER | {"STORE": kind, "STORE_URL": url}),
            "service": Server([BINARY], SERVICE | ours(url)),
        }
        with servers.serving(both) as started:
            if kind == "endpoint":
                cookies = [f"{COOKIE}=session-{number}" for number in range(SESSIONS)]
            else:
                cookies = list(log_in(started["express"]))
            script = ASK % ",".join(map(json.dumps, cookies))
            runs = {name: [] for name in started}
            for turn in range(-1, rounds):
                for name, server in started.items():
                    run = servers.load(server, {}, 64, seconds, script)
                    if run["refused"] or run["broken"]:
                        sys.exit(f"{kind}, {name}: not every request was answered: {run}")
                    # The first round is a warm-up.
                    if turn >= 0:
                        runs[name].append(run["cpu_us"])
    ratio = statistics.median(theirs / own for theirs, own in zip(runs["express"], runs["service"]))
    return statistics.median(runs["service"]), statistics.median(runs["express"]), ratio


def table(figures):
    yield "| | rollout-token | Express | with | Express ÷ rollout-token |"
    yield "| --- | ---: | ---: | --- | ---: |"
    for kind, (own, theirs, ratio) in figures.items():
        _, name, library, _ = KINDS[kind]
        bar = ""
        if kind == "redis":
            bar = f" (at least {REDIS_AT_LEAST}: {'pass' if ratio >= REDIS_AT_LEAST else '**miss**'})"
        yield f"| {name} | {own:.1f} µs | {theirs:.1f} µs | {library} | {ratio:.1f} ×{bar} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="the duration of each load test")
    parser.add_argument("--write", action="store_true", help="writes the results into docs/performance.md")
    options = parser.parse_args()
    figures = {kind: measure(kind, options.rounds, options.seconds) for kind in KINDS}
    lines = list(table(figures))
    print("\n".join(lines))
    if options.write:
        write("stores", lines)


if __name__ == "__main__":
    main()
