"""Runs the built binary as a process: starts it, sends requests to it and stops it."""

import hmac
import json
import os
import secrets
import signal
import subprocess
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/debug/rollout-token"
CLIENT_SECRET = secrets.token_hex(32)
# The service listens on free ports, so that it does not collide with other programs. Other tests check the configured
# ports.
FREE_PORTS = {"ROLLOUT__SERVER__LISTEN": "127.0.0.1:0", "ROLLOUT__SERVER__ADMIN_LISTEN": "127.0.0.1:0"}


def eventually(look, what, patience=20.0):
    """Calls `look` until its result is truthy, and returns that result. Fails after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {patience} s: {what}")


class Service:
    def __init__(self, process, log):
        self.process, self._log = process, log
        line = eventually(self._listening, f"the service listens\n{self.log()}")
        self.port, self.admin_port = (int(line[name].rpartition(":")[2]) for name in ("address", "admin_address"))

    def log(self):
        return self._log.read_text()

    def _listening(self):
        assert self.process.poll() is None, self.log()
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return next((line for line in lines if line.get("message") == "listening"), None)

    def ask(self, method, path, headers={}, admin=False):
        connection = HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=10)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def token(self, headers={}):
        return self.ask("POST", "/rollout/token", headers)

    def metrics(self):
        return self.ask("GET", "/metrics", admin=True)[1]

    def stop(self):
        """Sends SIGTERM to the service, as an orchestrator does, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(work, arguments, environment, program=(BINARY,)):
    """Starts the service with this command line and only these environment variables, and kills it at the end."""
    log = work / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*program, *arguments], env=environment, cwd=work, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Service(process, log)
    finally:
        process.kill()
        process.wait()


def command(arguments, environment={}, **options):
    """Runs a subcommand of the binary, and returns its exit code and output."""
    return subprocess.run([BINARY, *arguments], env=environment, capture_output=True, text=True, **options)


def subject_of(token):
    """Verifies the HS512 signature of a Rollout token with the client secret, and returns the token's subject."""
    signed, _, signature = token.rpartition(".")
    expected = hmac.digest(CLIENT_SECRET.encode(), signed.encode(), "sha512")
    assert urlsafe_b64encode(expected).rstrip(b"=").decode() == signature, token
    return json.loads(urlsafe_b64decode(signed.split(".")[1] + "=="))["sub"]
