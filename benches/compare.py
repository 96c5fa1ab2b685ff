#!/usr/bin/env python3
"""The service beside the routes that people write: what a request costs, how many a processor answers in a second,
how long the start takes, how large it is. `make bench` runs this; the table goes into docs/performance.md.

Every server does the same work: it verifies the same session JWT (HS256) and answers with a new token (HS512)
as JSON. Only the first, the floor, just says hello. All run at once, each pinned to the first processor, and
are asked in turns from the second, so that a change of the machine's speed meets them all. Requests per second are
those of a second of processor time: what a clock says depends on who else is using the processor."""

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
STATIC = ROOT / "target/x86_64-unknown-linux-gnu/release/rollout-token"
WARN, INFO = "rollout-token", "rollout-token, a log line each"
HELLO = "axum, hello"


def peers(log):
    uvicorn = [PEERS / "venv/bin/uvicorn", "fastapi_app:app", "--app-dir", ROOT / "benches/peers"]
    return {
        HELLO: Server([FLOOR], PEER),
        WARN: Server([BINARY], SERVICE | JWT),
        INFO: Server([BINARY], SERVICE | JWT | {"ROLLOUT__LOG__LEVEL": "info"}, log),
        "axum + jsonwebtoken": Server([RELEASE / "examples/peer-naive"], PEER),
        "Go net/http + golang-jwt": Server([PEERS / "nethttp"], PEER),
        "Fastify + jsonwebtoken": Server(["node", "fastify.js"], PEER),
        "Express + jsonwebtoken": Server(["node", "express.js"], PEER),
        "FastAPI + PyJWT": Server([*uvicorn, "--port", "$PORT", "--no-access-log"], PEER),
    }


# SPEC: "at most" of the floor's processor time, "at least" of a peer's requests per second.
AT_MOST = {WARN: 1.5, INFO: 2.0}
AT_LEAST = {"Go net/http + golang-jwt": 3, "FastAPI + PyJWT": 10, "Express + jsonwebtoken": 60}


def measure(rounds, seconds, connections):
    """Medians by server."""
    headers = {"Authorization": f"Bearer {servers.session()}"}
    with open("/dev/null", "wb") as log, servers.serving(peers(log)) as running:
        runs = {name: [] for name in running}
        for turn in range(-1, rounds):
            for name, server in running.items():
                run = servers.load(server, headers, connections, seconds if turn >= 0 else 1)
                if run["refused"] or run["broken"]:
                    sys.exit(f"{name} did not answer every request: {run}")
                # The first turn is to get warm.
                if turn >= 0:
                    runs[name].append(run)
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        resident = {name: server.resident_mib() for name, server in running.items()}
    figures = {}
    for name, taken in runs.items():
        figures[name] = {key: statistics.median(run[key] for run in taken) for key in taken[0]}
        # Ratios are taken within a round: its two figures saw the same machine.
        pairs = list(zip(taken, runs[HELLO], runs[WARN]))
        figures[name]["of_hello"] = statistics.median(own["cpu_us"] / hello["cpu_us"] for own, hello, _ in pairs)
        figures[name]["of_ours"] = statistics.median(own["cpu_us"] / warn["cpu_us"] for own, _, warn in pairs)
        figures[name]["resident_mib"] = resident[name]
    return figures


def table(figures):
    yield "| | CPU per request | × hello | requests per second of CPU | rollout-token answers | memory after |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, figure in figures.items():
        slower = f"{figure['of_ours']:.1f} ×" if name not in (HELLO, WARN, INFO) else ""
        yield (
            f"| {name} | {figure['cpu_us']:.1f} µs | {figure['of_hello']:.2f} | {1e6 / figure['cpu_us']:,.0f} "
            f"| {slower} | {figure['resident_mib']:.1f} MiB |"
        )


def verdicts(figures):
    for name, limit in AT_MOST.items():
        got = figures[name]["of_hello"]
        yield f"{name}: {got:.2f} × the processor time of hello, wanted at most {limit}", got <= limit
    for name, limit in AT_LEAST.items():
        got = figures[name]["of_ours"]
        yield f"{got:.1f} × the requests per second of {name}, wanted at least {limit}", got >= limit


def start_and_size():
    """Lines about the start, the binary and memory."""
    starts = []
    for _ in range(21):
        server = Server([BINARY], SERVICE | JWT)
        try:
            starts.append(server.wait() * 1000)
            resident = server.resident_mib()
        finally:
            server.stop()
    yield f"| from exec to accepting connections, median of {len(starts)} | {statistics.median(starts):.1f} ms | 20 ms |"
    yield f"| memory at rest | {resident:.1f} MiB | |"
    yield f"| the binary, linked to the C library | {BINARY.stat().st_size / 2**20:.1f} MiB | |"
    if STATIC.exists():
        yield f"| the binary, static | {STATIC.stat().st_size / 2**20:.1f} MiB | 12 MiB |"


def million(requests=1_000_000):
    """Memory after so many requests."""
    headers = {"Authorization": f"Bearer {servers.session()}"}
    with servers.serving({WARN: Server([BINARY], SERVICE | JWT)}) as running:
        done = 0
        while done < requests:
            done += servers.load(running[WARN], headers, 64, 5)["requests"]
        return f"| memory after {done:,} requests | {running[WARN].resident_mib():.1f} MiB | 16 MiB |"


def machine():
    model = pathlib.Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return f"two processors of a shared {model} machine, Linux, Rust {compiler}"


def write(name, lines):
    """Puts lines between the two markers of that name in the document."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = DOCUMENT.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    DOCUMENT.write_text(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="of each server in each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()

    figures = measure(options.rounds, options.seconds, options.connections)
    compared = list(table(figures))
    sizes = ["| | | at most |", "| --- | ---: | ---: |", *start_and_size(), million()]
    print("\n".join([*compared, "", *sizes, ""]))
    for text, holds in verdicts(figures):
        print("holds " if holds else "MISSED", text)
    if options.write:
        run = f"Measured on {machine()}: {options.rounds} rounds of {options.seconds} s, {options.connections} connections."
        write("compared", [run, "", *compared])
        write("sizes", sizes)


if __name__ == "__main__":
    main()
