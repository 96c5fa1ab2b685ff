"""Functions of `make bench` for servers: starting them on one core, sending them load from another, and reading the
resources that they used. compare.py, scale.py and stores.py use these functions."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
PEERS = ROOT / "target/peers"

SESSION_SECRET = "session-secret-session-secret-session-secret"
CLIENT_SECRET = "client-secret-client-secret-client-secret-client-secret-client-secret"
PATH = "/rollout/token"

# The servers run on one core, and the clients on the other.
SERVER_CPU, CLIENT_CPU = "0", "1"

CLIENT = {"ROLLOUT_CLIENT_ID": "client", "ROLLOUT_CLIENT_SECRET": CLIENT_SECRET}
PEER = CLIENT | {"SESSION_SECRET": SESSION_SECRET, "NODE_ENV": "production"}
SERVICE = CLIENT | {
    "ROLLOUT__LOG__LEVEL": "warn",
    # All requests are from the same user. The rate limit is checked and counted, but not reached.
    "ROLLOUT__RATE_LIMIT__PER_MINUTE": "1000000000",
    "ROLLOUT__RATE_LIMIT__BURST": "1000000000",
}
JWT = {
    "ROLLOUT__SESSION__EXTRACTORS": "jwt",
    "ROLLOUT__EXTRACTORS__JWT__SECRET": SESSION_SECRET,
    "ROLLOUT__EXTRACTORS__JWT__ALGORITHMS": "HS256",
    "ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE": "true",
}


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def session():
    """A session JWT that an identity provider could have signed a minute ago."""
    now = int(time.time())
    claims = {"sub": "user-1", "iat": now - 60, "exp": now + 86400}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{base64url(hmac.new(SESSION_SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"


def free_port(given=set()):
    """A free port that was not returned before, because servers bind their port later."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in given:
            given.add(port)
            return port


class Server:
    """A server process, pinned to the core `SERVER_CPU`."""

    def __init__(self, command, environment, log=subprocess.DEVNULL):
        self.port = free_port()
        address = {
            "PORT": str(self.port),
            "ROLLOUT__SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "ROLLOUT__SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        }
        command = [str(part).replace("$PORT", str(self.port)) for part in command]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CPU, *command],
            env={"PATH": os.environ["PATH"]} | environment | address,
            stdout=log,
            stderr=log,
            cwd=PEERS,
        )
        self.url = f"http://127.0.0.1:{self.port}{PATH}"

    def wait(self):
        """Waits until the server accepts connections. Returns the seconds since it was started."""
        while self.process.poll() is None and time.monotonic() < self.started + 30:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return time.monotonic() - self.started
            time.sleep(0.0005)
        raise SystemExit(f"{self.process.args} did not start")

    def cpu_seconds(self):
        """The user and system time of all threads of the server so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(servers):
    """Yields `{name: Server}` once all servers accept connections, and stops them at the end of the block."""
    try:
        for server in servers.values():
            server.wait()
        yield servers
    finally:
        for server in servers.values():
            server.stop()


SCRIPT = """
wrk.method = "POST"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d\\n", summary.requests, summary.duration, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def load(server, headers, connections, seconds, script=""):
    """Sends requests as fast as responses arrive, on this many keep-alive connections; `script` is a wrk script. Returns
    the number of requests and failures, their rates, the server's CPU time per request, and latencies."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        lines = (f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
        file.write("\n".join([SCRIPT, *lines, script]))
        file.flush()
        before = server.cpu_seconds()
        wrk = ["wrk", "--threads", "1", "--connections", connections, "--duration", seconds, "--timeout", 10]
        wrk = ["taskset", "-c", CLIENT_CPU, *map(str, wrk), "--script", file.name, server.url]
        output = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
        cpu = server.cpu_seconds() - before
    numbers = map(int, re.search(r"^RESULT (.*)$", output, re.MULTILINE)[1].split())
    requests, micros, refused, broken, p50, p99, p999 = numbers
    return {
        "requests": requests,
        "per_second": requests / micros * 1e6,
        "refused": refused,
        "refused_per_second": refused / micros * 1e6,
        "broken": broken,
        "cpu_us": cpu / max(requests, 1) * 1e6,
        "p50_ms": p50 / 1000,
        "p99_ms": p99 / 1000,
        "p999_ms": p999 / 1000,
    }
