#!/usr/bin/env python3
"""Measures how the service scales: with 1 to 10,000 connections, by extractor kind, by length of the chain, and past
saturation. Also measures tail latencies. `make bench` runs this; the tables go into docs/performance.md, and the
curves into docs/performance/.

The service runs on the first core; the clients and its backend run on the second."""

import argparse
import asyncio
import base64
import contextlib
import json
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import jwt
import matplotlib
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import servers
from compare import BARE, BINARY, FLOOR, write
from servers import JWT, PATH, PEER, ROOT, SERVICE, SESSION_SECRET, Server

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

CURVES = ROOT / "docs/performance"
CONNECTIONS = [1, 10, 100, 1000, 10_000]
IDLE, IDLE_MIB = 10_000, 160
# The saturation test: the backend's response time in seconds, and `server.max_in_flight`.
BACKEND_DELAY, IN_FLIGHT = 0.1, 64
ASKING = [16, 32, 64, 128, 256, 512, 1024]


def bearer():
    return {"Authorization": f"Bearer {servers.session()}"}


# ---- Connections -----------------------------------------------------------------------------------


def connections(seconds):
    """The figures for each number of connections, and the service's memory use with idle connections."""
    many = {"ROLLOUT__SERVER__MAX_CONNECTIONS": "12000"}
    runs = []
    for number in CONNECTIONS:
        both = {"service": Server([BINARY], SERVICE | JWT | many), "hello": Server([FLOOR], PEER)}
        with servers.serving(both) as running:
            of_hello = []
            # Each round measures the servers one after another, and the ratio is computed within a round.
            for _ in range(3):
                hello = servers.load(running["hello"], bearer(), number, seconds)
                run = servers.load(running["service"], bearer(), number, seconds)
                of_hello.append(run["cpu_us"] / hello["cpu_us"])
            run["of_hello"] = statistics.median(of_hello)
            runs.append(run | {"connections": number, "resident_mib": running["service"].resident_mib()})
        print(f"{number} connections: {runs[-1]}", file=sys.stderr)
    with servers.serving({"service": Server([BINARY], SERVICE | JWT | many)}) as running:
        idle = idle_memory(running["service"])
    return runs, idle


def idle_memory(server):
    """The server's memory use with `IDLE` idle connections, each of which has been used once."""
    head = "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: localhost", f"Authorization: {bearer()['Authorization']}", "", ""])
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            peer.sendall(head.encode())
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        return server.resident_mib()


def connections_table(runs, idle):
    yield "| connections | tokens/s | CPU per request | × hello | p50 | p99 | p99.9 | memory |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for run in runs:
        yield (
            f"| {run['connections']:,} | {run['per_second']:,.0f} | {run['cpu_us']:.1f} µs "
            f"| {run['of_hello']:.2f} | {run['p50_ms']:.2f} ms | {run['p99_ms']:.2f} ms | {run['p999_ms']:.2f} ms | {run['resident_mib']:.1f} MiB |"
        )
    verdict = "pass" if idle <= IDLE_MIB else "**miss**"
    yield f"| {IDLE:,}, idle | | | | | | | {idle:.1f} MiB (at most {IDLE_MIB}: {verdict}) |"


# ---- Extractor kinds and chain lengths -------------------------------------------------------------


def jwks(algorithm, key, public):
    """A key set, the environment variables of the service and of the bare route, and a header with a session that the key signed."""
    writer = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}
    jwk = writer.get(algorithm, jwt.algorithms.OKPAlgorithm).to_jwk(public, as_dict=True)
    jwk |= {"kid": "key-1", "alg": algorithm, "use": "sig"}
    now = int(time.time())
    claims = {"iss": "https://idp.example", "sub": "user-1", "iat": now - 60, "exp": now + 86400}
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "key-1"})
    environment = {
        "ROLLOUT__SESSION__EXTRACTORS": "jwt",
        "ROLLOUT__EXTRACTORS__JWT__ISSUERS": "https://idp.example",
        "ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE": "true",
    }
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    bare = PEER | {"SESSION_ALGORITHM": algorithm, "SESSION_SECRET": pem}
    return {"keys": [jwk]}, environment, bare, {"Authorization": f"Bearer {token}"}


def kinds(scratch):
    """Returns `{name: (the service's environment, the bare route's environment or None, request headers)}`."""
    found = {"`jwt`, HS256 secret": (JWT, PEER, bearer())}
    pairs = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    for algorithm, key in pairs.items():
        keys, environment, bare, headers = jwks(algorithm, key, key.public_key())
        file = pathlib.Path(scratch, f"{algorithm}.json")
        file.write_text(json.dumps(keys))
        environment |= {"ROLLOUT__EXTRACTORS__JWT__JWKS_FILE": str(file)}
        found[f"`jwt`, {algorithm} from a key set"] = (environment, bare, headers)
    found["`trusted_header`"] = (
        {
            "ROLLOUT__SESSION__EXTRACTORS": "trusted_header",
            "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER": "X-Forwarded-User",
            "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES": "127.0.0.0/8",
        },
        None,
        {"X-Forwarded-User": "user-1"},
    )
    return found


def chain(length):
    """A chain in which the last extractor finds the session; each of the others looks for a cookie of its own."""
    others = [f"other{number}" for number in range(1, length)]
    environment = JWT | {"ROLLOUT__SESSION__EXTRACTORS": ",".join([*others, "jwt"])}
    for name in others:
        section = f"ROLLOUT__EXTRACTORS__{name.upper()}__"
        environment |= {f"{section}KIND": "starlette", f"{section}COOKIE": name, f"{section}SECRET_KEY": SESSION_SECRET}
    return environment


def costs(rounds, seconds):
    """Returns the median CPU time per request, `{(name, "service" or "bare"): µs}`, by extractor kind and by length of
    the chain. For the `jwt` kinds, "bare" is the bare route that verifies the same session; the other cases have no
    bare route."""
    with tempfile.TemporaryDirectory() as scratch:
        asked = kinds(scratch) | {f"a chain of {length}": (chain(length), None, bearer()) for length in (1, 3, 10)}
        started = {(name, "service"): Server([BINARY], SERVICE | environment) for name, (environment, _, _) in asked.items()}
        started |= {(name, "bare"): Server([BARE], bare) for name, (_, bare, _) in asked.items() if bare}
        with servers.serving(started) as running:
            runs = {key: [] for key in running}
            for _ in range(rounds):
                for (name, which), server in running.items():
                    run = servers.load(server, asked[name][2], 64, seconds)
                    if run["refused"]:
                        sys.exit(f"{name}, {which}: refused: {run}")
                    runs[name, which].append(run["cpu_us"])
                    print(f"{name}, {which}: {run}", file=sys.stderr)
    return {key: statistics.median(taken) for key, taken in runs.items()}


def costs_table(figures):
    yield "| | CPU per request | the bare route, same session |"
    yield "| --- | ---: | ---: |"
    for (name, which), micros in figures.items():
        if which == "service":
            bare = figures.get((name, "bare"))
            yield f"| {name} | {micros:.1f} µs | {f'{bare:.1f} µs' if bare else ''} |"


# ---- Tail latencies ----------------------------------------------------------------------------------


def tails(rounds, seconds):
    """Tail latencies in ms: the median of each percentile over all rounds. Each round measures the servers one after
    another."""
    three = {"axum (hello)": ([FLOOR], PEER), "axum + jsonwebtoken": ([BARE], PEER), "rollout-token": ([BINARY], SERVICE | JWT)}
    with servers.serving({name: Server(*server) for name, server in three.items()}) as running:
        runs = {(name, number): [] for number in (64, 1000) for name in running}
        for _ in range(rounds):
            for (name, number), taken in runs.items():
                taken.append(servers.load(running[name], bearer(), number, seconds))
    return {key: {at: statistics.median(run[at] for run in taken) for at in ("p50_ms", "p99_ms", "p999_ms")} for key, taken in runs.items()}


def tails_table(figures):
    yield "| connections | | p50 | p99 | p99.9 |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    for (name, number), run in figures.items():
        yield f"| {number:,} | {name} | {run['p50_ms']:.2f} ms | {run['p99_ms']:.2f} ms | {run['p999_ms']:.2f} ms |"


# ---- Past saturation ---------------------------------------------------------------------------------


async def backend(port):
    """Responds with the same user to every request, after a delay."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(BACKEND_DELAY)
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"sub":"user-1"}')

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


# Every request has a different session id, because requests with the same id would share a backend call. Each client
# waits 100 ms before its next request, so that a refused client does not try again at once.
ASK = """
local session = 0
request = function() session = session + 1; return wrk.format("POST", nil, {["Cookie"] = "sid=" .. session}) end
delay = function() return 100 end
"""


def saturation(seconds):
    port = servers.free_port()
    command = ["taskset", "-c", servers.CLIENT_CPU, sys.executable, __file__, "--backend", str(port)]
    environment = SERVICE | {
        "ROLLOUT__SERVER__MAX_IN_FLIGHT": str(IN_FLIGHT),
        "ROLLOUT__SESSION__EXTRACTORS": "session_endpoint",
        "ROLLOUT__EXTRACTORS__SESSION_ENDPOINT__URL": f"http://127.0.0.1:{port}/me",
        "ROLLOUT__EXTRACTORS__SESSION_ENDPOINT__COOKIES": "sid",
        "ROLLOUT__EXTRACTORS__SESSION_ENDPOINT__SUBJECT": "{sub}",
    }
    runs = []
    with subprocess.Popen(command) as process:
        try:
            with servers.serving({"service": Server([BINARY], environment)}) as running:
                time.sleep(1)
                for number in ASKING:
                    run = servers.load(running["service"], {}, number, seconds, script=ASK)
                    run["answered_per_second"] = run["per_second"] - run["refused_per_second"]
                    runs.append(run | {"connections": number, "resident_mib": running["service"].resident_mib()})
                    print(f"{number} asking: {runs[-1]}", file=sys.stderr)
        finally:
            process.kill()
    return runs


def saturation_table(runs):
    yield "| client connections | tokens/s | refused/s, 503 | p50 | p99 | CPU per request | memory |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for run in runs:
        yield (
            f"| {run['connections']:,} | {run['answered_per_second']:,.0f} | {run['refused_per_second']:,.0f} "
            f"| {run['p50_ms']:.1f} ms | {run['p99_ms']:.1f} ms | {run['cpu_us']:.1f} µs | {run['resident_mib']:.1f} MiB |"
        )


# ---- Curves ------------------------------------------------------------------------------------------


def draw(name, panels):
    """Draws one chart for each `(title, runs, {label: key})`, side by side, over the number of connections."""
    pyplot.rcParams.update({"svg.hashsalt": name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.6 * len(panels), 2.9), layout="constrained")
    for axis, (title, runs, lines) in zip(axes, panels):
        numbers = [run["connections"] for run in runs]
        for label, key in lines.items():
            axis.plot(numbers, [run[key] for run in runs], marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="connections", xscale="log", ylim=(0, None))
        if len(lines) > 1:
            axis.legend(frameon=False)
    CURVES.mkdir(exist_ok=True)
    figure.savefig(CURVES / f"{name}.svg", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="the number of rounds for the costs by kind")
    parser.add_argument("--seconds", type=int, default=4, help="the duration of each load test")
    parser.add_argument("--write", action="store_true", help="writes the results into docs/performance.md and docs/performance/")
    parser.add_argument("--backend", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        asyncio.run(backend(options.backend))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    runs, idle = connections(options.seconds)
    by_kind = costs(options.rounds, max(options.seconds // 2, 1))
    slowest = tails(options.rounds, options.seconds)
    shed = saturation(options.seconds)
    tables = {
        "connections": list(connections_table(runs, idle)),
        "costs": list(costs_table(by_kind)),
        "tails": list(tails_table(slowest)),
        "saturation": list(saturation_table(shed)),
    }
    for name, lines in tables.items():
        print("\n".join([*lines, ""]))
        if options.write:
            write(name, lines)
    if options.write:
        draw(
            "connections",
            [
                ("tokens per second", runs, {"tokens": "per_second"}),
                ("milliseconds", runs, {"p99.9": "p999_ms", "p99": "p99_ms", "p50": "p50_ms"}),
                ("memory, MiB", runs, {"memory": "resident_mib"}),
            ],
        )
        draw(
            "saturation",
            [
                ("answers per second", shed, {"tokens": "answered_per_second", "503 at once": "refused_per_second"}),
                ("milliseconds", shed, {"p99": "p99_ms", "p50": "p50_ms"}),
            ],
        )


if __name__ == "__main__":
    main()
