#!/usr/bin/env python3
"""Compares the CPU time and the latency of the service with those of routes that developers write. Also measures the
service's start-up time, memory and binary size, and checks all limits. `make bench` runs this; the tables go into
docs/performance.md.

Every server except the first does the same work: it verifies the same session JWT (HS256) and responds with a new token
(HS512) as JSON. The first server only says hello. The bare route is the one of axum and jsonwebtoken. All servers run
at the same time, pinned to the first core, and the clients on the second core call them in turns, so that a change of
the machine's speed affects all of them. Requests per second are per second of CPU time, because the elapsed time
depends on what else is using the core."""

import argparse
import pathlib
import statistics
import subprocess
import sys

import servers
from servers import JWT, PEER, PEERS, RELEASE, ROOT, SERVICE, Server

DOCUMENT = ROOT / "docs/performance.md"
BINARY = RELEASE / "rollout-token"
FLOOR = RELEASE / "examples/peer-hello"
BARE = RELEASE / "examples/peer-naive"
STATIC = ROOT / "target/x86_64-unknown-linux-gnu/release/rollout-token"
WARN, INFO = "rollout-token", "rollout-token (one log line per request)"
HELLO, NAIVE = "axum (hello)", "axum + jsonwebtoken"


def peers(log):
    uvicorn = [PEERS / "venv/bin/uvicorn", "fastapi_app:app", "--app-dir", ROOT / "benches/peers"]
    return {
        HELLO: Server([FLOOR], PEER),
        WARN: Server([BINARY], SERVICE | JWT),
        INFO: Server([BINARY], SERVICE | JWT | {"ROLLOUT__LOG__LEVEL": "info"}, log),
        NAIVE: Server([BARE], PEER),
        "Go net/http + golang-jwt": Server([PEERS / "nethttp"], PEER),
        "Fastify + jsonwebtoken": Server(["node", "fastify.js"], PEER),
        "Express + jsonwebtoken": Server(["node", "express.js"], PEER),
        "FastAPI + PyJWT": Server([*uvicorn, "--port", "$PORT", "--no-access-log"], PEER),
    }


# The limits. AT_MOST: the service uses at most this multiple of the other server's CPU time per request. AT_LEAST: the
# service answers at least this multiple of the other server's requests per CPU-second. The bare route of axum and
# jsonwebtoken has no limits or request checks. The service has them, and still must not use more CPU time.
AT_MOST = [(WARN, NAIVE, 1.0), (WARN, HELLO, 1.65), (INFO, HELLO, 2.0)]
AT_LEAST = {"Go net/http + golang-jwt": 2, "FastAPI + PyJWT": 12, "Express + jsonwebtoken": 60}
P99_OF_NAIVE = 1.5
READY_MS, AFTER_A_MILLION_MIB, STATIC_MIB = 20, 20, 16


def measure(rounds, seconds, connections):
    """The medians of all rounds, by server."""
    headers = {"Authorization": f"Bearer {servers.session()}"}
    with open("/dev/null", "wb") as log, servers.serving(peers(log)) as running:
        runs = {name: [] for name in running}
        for turn in range(-1, rounds):
            for name, server in running.items():
                run = servers.load(server, headers, connections, seconds if turn >= 0 else 1)
                if run["refused"] or run["broken"]:
                    sys.exit(f"{name} did not answer every request: {run}")
                # The first round is a warm-up.
                if turn >= 0:
                    runs[name].append(run)
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        resident = {name: server.resident_mib() for name, server in running.items()}
    figures = {}
    for name, taken in runs.items():
        figures[name] = {key: statistics.median(run[key] for run in taken) for key in taken[0]}
        # A ratio is computed within one round, in which both servers run under the same conditions.
        def ratio(key, other):
            return statistics.median(own[key] / theirs[key] for own, theirs in zip(taken, runs[other]))

        figures[name]["cpu_of"] = {other: ratio("cpu_us", other) for other in (HELLO, NAIVE, WARN)}
        figures[name]["p99_of_naive"] = ratio("p99_ms", NAIVE)
        figures[name]["resident_mib"] = resident[name]
    return figures


def table(figures):
    yield "| | CPU per request | × hello | × bare route | requests per CPU-second | rollout-token ÷ this server | p99 | memory after |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, figure in figures.items():
        slower = f"{figure['cpu_of'][WARN]:.1f} ×" if name not in (HELLO, WARN, INFO) else ""
        yield (
            f"| {name} | {figure['cpu_us']:.1f} µs | {figure['cpu_of'][HELLO]:.2f} | {figure['cpu_of'][NAIVE]:.2f} "
            f"| {1e6 / figure['cpu_us']:,.0f} | {slower} | {figure['p99_ms']:.2f} ms | {figure['resident_mib']:.1f} MiB |"
        )


def users(figures):
    """How many open pages one core can serve: the front end fetches a token every 14 minutes (`refresh_in`)."""
    a_second = 1e6 / figures[INFO]["cpu_us"]
    yield f"One core mints {a_second:,.0f} tokens a second, each with a log line. An open page fetches one every 14 minutes, so the core"
    yield f"serves {a_second * 840 / 1e6:,.0f} million open pages. {a_second * 8.4:,.0f} of them keep it busy for 1 % of the time."


def speed_bars(figures):
    """Rows of `(what was measured, unit, figure, limit, whether the limit is kept)`."""
    for name, other, limit in AT_MOST:
        got = figures[name]["cpu_of"][other]
        yield f"CPU per request: {name} ÷ {other}", "×", got, f"at most {limit}", got <= limit
    for name, limit in AT_LEAST.items():
        got = figures[name]["cpu_of"][WARN]
        yield f"requests per CPU-second: {WARN} ÷ {name}", "×", got, f"at least {limit}", got >= limit
    got = figures[WARN]["p99_of_naive"]
    yield f"p99: {WARN} ÷ {NAIVE}", "×", got, f"at most {P99_OF_NAIVE}", got <= P99_OF_NAIVE


def size_bars():
    """Rows in the form of `speed_bars`, for start-up time, memory and binary size."""
    starts = []
    for _ in range(21):
        server = Server([BINARY], SERVICE | JWT)
        try:
            starts.append(server.wait() * 1000)
            resident = server.resident_mib()
        finally:
            server.stop()
    ready = statistics.median(starts)
    yield f"from exec to accepting connections, median of {len(starts)}", "ms", ready, f"at most {READY_MS}", ready <= READY_MS
    yield "memory at rest", "MiB", resident, "", True
    requests, resident = million()
    limit = AFTER_A_MILLION_MIB
    yield f"memory after {requests:,} requests", "MiB", resident, f"at most {limit}", resident <= limit
    yield "the binary, dynamically linked to the C library", "MiB", BINARY.stat().st_size / 2**20, "", True
    if STATIC.exists():
        size = STATIC.stat().st_size / 2**20
        yield "the binary, static", "MiB", size, f"at most {STATIC_MIB}", size <= STATIC_MIB


def bars_table(bars):
    yield "| | | target | |"
    yield "| --- | ---: | ---: | --- |"
    for what, unit, got, limit, is_kept in bars:
        verdict = ("pass" if is_kept else "**miss**") if limit else ""
        yield f"| {what} | {got:.2f} {unit} | {limit} | {verdict} |"


def million(requests=1_000_000):
    """Sends at least `requests` requests. Returns the number of requests answered, and the memory use afterwards."""
    headers = {"Authorization": f"Bearer {servers.session()}"}
    with servers.serving({WARN: Server([BINARY], SERVICE | JWT)}) as running:
        done = 0
        while done < requests:
            done += servers.load(running[WARN], headers, 64, 5)["requests"]
        return done, running[WARN].resident_mib()


def machine():
    model = pathlib.Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return f"two processors of a shared {model} machine, Linux, Rust {compiler}"


def write(name, lines):
    """Replaces the lines between the two markers called `name` in the document."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = DOCUMENT.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    DOCUMENT.write_text(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="the duration of each server's load in each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="writes the results into docs/performance.md")
    options = parser.parse_args()

    figures = measure(options.rounds, options.seconds, options.connections)
    compared = list(table(figures))
    speed = list(bars_table(speed_bars(figures)))
    sizes = list(bars_table(size_bars()))
    print("\n".join([*compared, "", *speed, "", *sizes]))
    if options.write:
        run = f"Measured on {machine()}: {options.rounds} rounds of {options.seconds} s, {options.connections} connections."
        write("compared", [run, "", *compared, "", *speed])
        write("sizes", sizes)
        write("users", list(users(figures)))


if __name__ == "__main__":
    main()
