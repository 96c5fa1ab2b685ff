"""Verifies minted tokens with the JWT libraries of other languages, and the tokens of Rollout's sample programs with
`rollout-token inspect`. Every library gets the same list of tokens. Some of them must be refused, because a library
that refuses nothing would prove nothing. The results are compared with what docs/interop.md states about each library.

For each language there is a file and a line in VERIFIERS. The program reads lines of `case, secret, issuer, token`,
separated by tabs, and prints
`library, version, case, accepted|accepted with a warning|refused, claims as JSON or the reason`.
"""

import base64
import hmac
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIBRARIES = ROOT / "target/interop"
BINARY = ROOT / "target/debug/rollout-token"
PYTHON = str(LIBRARIES / "venv/bin/python")
DEBIAN_VERSION = "dpkg-query -W -f='${source:Upstream-Version}' "
GO = f"VERSION=$({DEBIAN_VERSION} golang-github-golang-jwt-jwt-dev)"

# Shell commands; $OUT is a folder for compiled files.
VERIFIERS = {
    "verify.mjs": "node verify.mjs",
    "verify.py": f"{PYTHON} verify.py",
    "verify.rb": "ruby verify.rb",
    "verify.go": f"go build -o $OUT/verify-go verify.go && {GO} $OUT/verify-go",
    "verify.pl": "perl verify.pl",
    "verify.c": "cc -Wall -Werror -DVERSION=\"\\\"$(pkg-config --modversion libjwt)\\\"\" verify.c -ljwt -o $OUT/verify-c && $OUT/verify-c",
    "Verify.java": "java Verify.java",
    "verify.php": "php verify.php",
}
SAMPLES = {
    "sample.cjs": "node samples/sample.cjs",
    "sample.py": f"{PYTHON} samples/sample.py",
    "sample.rb": "ruby samples/sample.rb",
    "sample.go": "go build -o $OUT/sample-go samples/sample.go && $OUT/sample-go",
}

ISSUER = "client-1"
# The first secret looks like base64, the second like hexadecimal: a library that decodes them uses a different key.
SECRETS = {
    "64 bytes": "dGhpcy1sb29rcy1saWtlLWJhc2U2NCwgYnV0LWl0LWlzLW5vdC1kZWNvZGVkLg==",
    "32 bytes": "00112233445566778899aabbccddeeff",
}
SUBJECTS = {
    "ASCII": "user-1",
    "not ASCII": "Ünï-çødé-日本-🦀",
    "256 bytes": "x" * 256,
    "what JSON escapes": '"quotes" \\back\\ </slash> & \'',
    "looks like JSON": '","admin":true,"exp":9999999999,"x":{"$ne":null}',
    "looks like a number": "00123",
}

# The environment of every program in this test. Other variables are left out, because they could change the result.
BASE = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
    "LANG": "C.UTF-8",
    "LIBRARIES": str(LIBRARIES),
    "NODE_PATH": str(LIBRARIES / "node_modules"),
    "OUT": str(LIBRARIES),
    # Debian installs Go libraries as sources in one folder, which Go finds only with modules disabled.
    "GO111MODULE": "off",
    "GOPATH": "/usr/share/gocode",
    "GOCACHE": str(LIBRARIES / "go-cache"),
}

NONE = ("no answer", "")
passed = failed = 0


def check(name: str, good: bool, seen: object = "") -> None:
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"FAILED  {name}\n        {seen}")


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, env=BASE | environment, cwd=HERE, capture_output=True, text=True)


def ours(*args: str, secret: str) -> subprocess.CompletedProcess:
    return run([str(BINARY), *args], ROLLOUT_CLIENT_ID=ISSUER, ROLLOUT_CLIENT_SECRET=secret)


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(token: str, index: int) -> dict:
    encoded = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def sign(header: dict, claims: dict, key: bytes, digest: str = "sha512") -> str:
    """Signs a token without a JWT library, for headers and claims that `mint` does not create."""
    body = ".".join(text(json.dumps(each, separators=(",", ":")).encode()) for each in (header, claims))
    return f"{body}.{text(hmac.digest(key, body.encode(), digest))}"


def from_dev() -> tuple[str, str]:
    """Runs the curl line that `rollout-token dev` prints. Returns the token in the answer, and the printed secret."""
    with tempfile.TemporaryFile("w+") as log:
        ports = {f"ROLLOUT__SERVER__{name}": "127.0.0.1:0" for name in ("LISTEN", "ADMIN_LISTEN")}
        dev = subprocess.Popen([BINARY, "dev"], env=BASE | ports, stdout=log, stderr=log)
        try:
            for _ in range(100):
                log.seek(0)
                said = log.read()
                curl = re.search(r"^  A token +(.+)$", said, re.M)
                secret = re.search(r"^  Secret +(\S+)", said, re.M)
                if curl and secret:
                    return json.loads(run(shlex.split(curl[1])).stdout)["token"], secret[1]
                time.sleep(0.1)
            sys.exit(f"dev printed no curl line or no secret:\n{said}")
        finally:
            dev.terminate()
            dev.wait()


class Case:
    def __init__(self, name: str, token: str, secret: str, accepted: bool | None, issuer: str = ISSUER):
        # `accepted` is None if the libraries differ; docs/interop.md lists their results.
        self.name, self.token, self.secret, self.accepted, self.issuer = name, token, secret, accepted, issuer


def cases() -> list[Case]:
    made = []
    for length, secret in SECRETS.items():
        for kind, subject in SUBJECTS.items():
            minted = ours("mint", "--", subject, secret=secret)
            token = minted.stdout.strip()
            check(f"mint: {kind}, {length}", minted.returncode == 0, minted.stderr)
            check(f"header: {kind}, {length}", part(token, 0) == {"typ": "JWT", "alg": "HS512"}, token)
            claims = part(token, 1)
            check(f"claims: {kind}, {length}", list(claims) == ["iss", "sub", "iat", "exp"] and claims["sub"] == subject, claims)
            check(f"life: {kind}, {length}", claims["exp"] - claims["iat"] == 900, claims)
            made.append(Case(f"{length}, {kind}", token, secret, True))

    token, dev_secret = from_dev()
    made.append(Case("dev's curl line", token, dev_secret, True, issuer="dev-client"))

    secret = SECRETS["64 bytes"]
    key = secret.encode()
    good = next(case for case in made if case.secret == secret).token
    header, claims, now = part(good, 0), part(good, 1), int(time.time())
    signature = base64.urlsafe_b64decode(good.split(".")[2] + "==")
    head, body, _ = good.split(".")
    admin = text(json.dumps(claims | {"sub": "admin"}, separators=(",", ":")).encode())
    none = text(b'{"typ":"JWT","alg":"none"}')
    refused = {
        "another subject with the same signature": f"{head}.{admin}.{good.split('.')[2]}",
        "one flipped bit in the signature": f"{head}.{body}.{text(bytes([signature[0] ^ 1]) + signature[1:])}",
        "half a signature": f"{head}.{body}.{text(signature[:32])}",
        "no signature": f"{head}.{body}.",
        "alg none": f"{none}.{body}.",
        "HS256 with the same secret": sign({"typ": "JWT", "alg": "HS256"}, claims, key, "sha256"),
        "another secret": sign(header, claims, f"{secret}x".encode()),
        "the secret base64-decoded": sign(header, claims, base64.b64decode(secret)),
        "expired one second ago": sign(header, claims | {"iat": now - 901, "exp": now - 1}, key),
        "another issuer": sign(header, claims | {"iss": "client-2"}, key),
    }
    made += [Case(name, token, secret, False) for name, token in refused.items()]
    rules = {
        "`iat` ahead": sign(header, claims | {"iat": now + 60}, key),
        "no `typ`": sign({"alg": "HS512"}, claims, key),
        "other `typ`": sign({"typ": "at+jwt", "alg": "HS512"}, claims, key),
    }
    # Check `sign` itself: a token that it signs with a minted token's header and claims must be accepted.
    made.append(Case("signed by hand", sign(header, claims, key), secret, True))
    made += [Case(name, token, secret, None) for name, token in rules.items()]
    return made


def judge(cases: list[Case], library: str, answers: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Checks every result. Returns the library's result for each rule on which the libraries differ."""
    for case in cases:
        outcome, said = answers.get(case.name, NONE)
        seen = f"{outcome}: {said}"
        if case.accepted is True:
            good = outcome.startswith("accepted") and json.loads(said) == part(case.token, 1)
            check(f"{library}: {case.name}", good, seen)
        elif case.accepted is False:
            check(f"{library}: {case.name}", outcome == "refused", seen)
    def answer(case: Case) -> str:
        return answers.get(case.name, NONE)[0]

    rules = {case.name: answer(case) for case in cases if case.accepted is None}
    short = {answer(case) for case in cases if case.name.startswith("32 bytes")}
    return {"32-byte secret": " or ".join(sorted(short))} | rules


def verifiers(cases: list[Case]) -> dict[str, tuple[str, dict[str, str]]]:
    """Runs all verifiers concurrently. Returns the version of each library, and what `judge` returns for it."""
    lines = "".join(f"{case.name}\t{case.secret}\t{case.issuer}\t{case.token}\n" for case in cases)
    running = {
        file: subprocess.Popen(
            line, shell=True, env=BASE, cwd=HERE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for file, line in VERIFIERS.items()
    }
    # Send the list to all programs before waiting for any of them; it is far smaller than a pipe's buffer.
    seen = {}
    for process in running.values():
        process.stdin.write(lines)
        process.stdin.flush()
    for file, process in running.items():
        output, complaint = process.communicate()
        check(f"{file} ran", process.returncode == 0, complaint)
        answers: dict[tuple[str, str], dict] = defaultdict(dict)
        for line in output.splitlines():
            library, version, name, answer, said = line.split("\t")
            answers[library, version][name] = (answer, said)
        check(f"{file} answered", bool(answers), output)
        for (library, version), given in answers.items():
            rules = judge(cases, library, given)
            seen[library] = version, rules
            print(f"{library} {version}: {rules}")
    return seen


def documented() -> dict[str, tuple[str, dict[str, str]]]:
    table = [line for line in (ROOT / "docs/interop.md").read_text().splitlines() if line.startswith("|")]
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    each = [dict(zip(names, row)) for row in rows]
    return {row.pop("library"): (row.pop("version"), row) for row in each if row.pop("language")}


def compare_with_docs(seen: dict[str, tuple[str, dict[str, str]]]) -> None:
    docs = documented()
    check("docs/interop.md has a row for each library", sorted(docs) == sorted(seen), sorted(set(docs) ^ set(seen)))
    for library in docs.keys() & seen.keys():
        (said_version, said), (version, rules) = docs[library], seen[library]
        check(f"docs/interop.md on {library}", said == rules, f"the page says {said}, but the result is {rules}")
        # Debian determines the versions of its packages; package.json and requirements.txt pin all other versions.
        if "Debian" not in said_version:
            check(f"docs/interop.md on {library}'s version", said_version == version, version)


def samples() -> None:
    """The reverse check: `rollout-token inspect` verifies the tokens that Rollout's sample programs create."""
    secret = SECRETS["64 bytes"]
    for file, line in SAMPLES.items():
        arguments = " ".join(map(shlex.quote, SUBJECTS.values()))
        printed = run(["sh", "-c", f"{line} {arguments}"], ROLLOUT_CLIENT_ID=ISSUER, ROLLOUT_CLIENT_SECRET=secret)
        tokens = printed.stdout.split()
        check(f"{file} ran", printed.returncode == 0 and len(tokens) == len(SUBJECTS), printed.stderr)
        for (kind, subject), token in zip(SUBJECTS.items(), tokens):
            claims = part(token, 1)
            mine = part(ours("mint", "--", subject, secret=secret).stdout, 1)
            same = {name: type(value) for name, value in claims.items()} == {name: type(value) for name, value in mine.items()}
            check(f"{file}: the claims have the names and types of the minted claims: {kind}", same and claims["sub"] == subject and claims["iss"] == ISSUER, claims)
            check(f"{file}: the token is valid for 900 s: {kind}", claims["exp"] - claims["iat"] == 900, claims)
            good = ours("inspect", "--", token, secret=secret)
            check(f"{file}: inspect accepts the token: {kind}", good.returncode == 0 and "signature is good" in good.stdout, good.stderr)
        refused = ours("inspect", "--", tokens[0], secret=secret + "x")
        check(f"{file}: inspect refuses the token with another secret", refused.returncode == 1, refused.stdout)


def inspect_refuses(cases: list[Case]) -> None:
    for case in cases:
        if case.accepted is False:
            seen = ours("inspect", "--", case.token, secret=case.secret)
            check(f"inspect: {case.name}", seen.returncode == 1, seen.stdout)


if __name__ == "__main__":
    every = cases()
    compare_with_docs(verifiers(every))
    samples()
    inspect_refuses(every)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)
