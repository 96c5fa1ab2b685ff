"""Checks the docs: `check-config` validates every configuration block, shell blocks are run unless a marker prevents
it, other blocks are parsed or compiled, and the target of every relative link must exist. A block in a language without
a check fails.

Usage: target/interop/venv/bin/python tests/docs/check.py [FILE …]
"""

import ast
import functools
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/debug/rollout-token"
CARGO, MAKE = shutil.which("cargo"), shutil.which("make")
SUMMARY = ROOT / "docs/SUMMARY.md"
# In these files each configuration is complete, so the service is started with it unchanged.
WHOLE = {ROOT / "README.md"}
FOLDERS = [".", "docs", "web", "deploy", "examples", "packaging"]

# The markers after a language, as in ```sh,server, and how a block with that marker is handled.
MARKERS = {
    "server": "runs until it is stopped: it is started in the background and kept for the rest of the page",
    "deploy": "needs a container engine, a cluster, root or another running program: only its syntax is checked",
    "online": "calls Rollout or a package registry: only its syntax is checked",
    "other": "a file of another program, or a part of such a file: it is only parsed",
    "crate": "the Cargo.toml or the src/main.rs of an example crate: they are compiled together",
}
# The languages of blocks that are not code, such as the output of a program.
PROSE = {"", "mermaid", "text"}

CLIENT = {"ROLLOUT_CLIENT_ID": "client-1", "ROLLOUT_CLIENT_SECRET": secrets.token_hex(32)}
VARIABLE = re.compile(r"(export )?ROLLOUT_[A-Z0-9_]+=")
TIMEOUT = 300
FENCE = re.compile(r"^( *)(```+)(.*)$")


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    printed = subprocess.run([BINARY, "config-schema"], capture_output=True, check=True).stdout
    jsonschema.Draft202012Validator.check_schema(json.loads(printed))
    return jsonschema.Draft202012Validator(json.loads(printed))


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    marker: str
    text: str


def blocks(text: str) -> list[Block]:
    found, lines = [], iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if opened := FENCE.match(line):
            indent, fence, info = opened.groups()
            body = []
            for _, line in lines:
                if line.strip() == fence:
                    break
                body.append(line.removeprefix(indent))
            language, _, marker = info.strip().partition(",")
            found.append(Block(number, language, marker, "\n".join(body) + "\n"))
    return found


class Page:
    """The blocks of one file, in order, in their own folder and environment: what one block exports or starts is
    available to the next, as for a reader who follows the page from top to bottom."""

    def __init__(self, folder: Path, whole: bool):
        self.folder, self.whole = folder, whole
        self.servers: list[subprocess.Popen] = []
        self.output = ""
        for name in ("examples", "config"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("node_modules"))
        for name in ("run/secrets", "etc", "bin"):
            (folder / name).mkdir(parents=True)
        self.shim("rollout-token", f'exec "{BINARY}" "$@"')
        # `npx rollout-token …` and `uvx rollout-token …` run the built binary; `make release-test` tests the packages.
        for name in ("npx", "uvx"):
            self.shim(name, 'exec "$@"')
        # `pbpaste` prints the request that the reader has copied in the browser.
        cookie = f"s%3A{'a' * 32}.{'b' * 43}"
        self.shim("pbpaste", f"""echo "curl 'http://localhost:3000/' -b 'connect.sid={cookie}'" """.strip())
        # The binary is already built, and a page must not run all tests, because checking the page is one of them.
        self.shim("cargo", f'case $1 in run) shift 2; exec "{BINARY}" "$@";; esac; cd "{ROOT}" && exec "{CARGO}" "$@"')
        self.shim("make", f'exec "{MAKE}" --dry-run -C "{ROOT}" "$@" >/dev/null')
        self.ports = {"8080": free_port(), "8081": free_port()}
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
        self.fresh = kept | CLIENT | {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "ROLLOUT__SERVER__LISTEN": f"127.0.0.1:{self.ports['8080']}",
            "ROLLOUT__SERVER__ADMIN_LISTEN": f"127.0.0.1:{self.ports['8081']}",
        }
        self.environment = self.fresh

    def shim(self, name: str, line: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def localized(self, text: str) -> str:
        """Returns the text with the sandbox's folders and ports, and with real values in place of the placeholders."""
        for place in ("/run/secrets", "/etc"):
            text = re.sub(rf"(?<![\w.]){place}(?=/)", f"{self.folder}{place}", text)
        for name, value in CLIENT.items():
            text = text.replace(f"{name}=…", f"{name}={value}")
        for port, free in self.ports.items():
            text = re.sub(rf"\b(127\.0\.0\.1|localhost):{port}\b", rf"\g<1>:{free}", text)
        for name in re.findall(rf"{self.folder}(?:/run/secrets|/etc)/[\w./-]+", text):
            self.provide(Path(name))
        return text

    def provide(self, path: Path) -> None:
        """Creates the secret file that a reader of the page has at this path. The path determines its content."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.name
        if "url" in name:
            text = "redis://redis.internal:6379/0" if "redis" in name else "postgres://reader@db.internal/app"
        elif "app_key" in name or "app_previous" in name:
            text = "base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        elif path.suffix == ".pem":
            command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
            private = subprocess.run(command, capture_output=True, check=True).stdout
            command = ["openssl", "pkey", "-pubout"]
            text = subprocess.run(command, input=private, capture_output=True, check=True).stdout.decode()
        else:
            text = secrets.token_hex(32)
        path.write_text(text + "\n")

    def check(self, block: Block) -> str:
        """Returns a description of the block's problem, or an empty string."""
        if block.marker and block.marker not in MARKERS:
            return f"unknown marker {block.marker}: it must be one of {', '.join(MARKERS)}"
        if block.language in PROSE:
            return ""
        try:
            checker = getattr(self, f"check_{block.language}")
        except AttributeError:
            return f"there is no check for blocks in the language {block.language!r}"
        try:
            return checker(block) or ""
        except Exception as problem:  # Any exception means that the block failed.
            return f"{type(problem).__name__}: {problem}"

    def check_toml(self, block: Block) -> str:
        parsed = tomllib.loads(block.text)
        if block.marker == "other":
            return ""
        if block.marker == "crate":
            manifest = block.text.replace("../rollout-token", str(ROOT))
            (self.folder / "crate/src").mkdir(parents=True)
            (self.folder / "crate/Cargo.toml").write_text(manifest)
            # Use the dependency versions that are already downloaded and compiled.
            shutil.copy(ROOT / "Cargo.lock", self.folder / "crate")
            return ""
        text = block.text
        if not self.whole and "extractors" not in parsed.get("session", {}):
            # Enable the extractor sections of the block. If it has none, add a valid section.
            names = list(parsed.get("extractors", {}))
            if not names:
                names, text = ["proxy"], f'{text}\n[extractors.proxy]\nkind = "trusted_header"\npreset = "oauth2-proxy"\ntrusted_proxies = ["10.0.0.5"]\n'
            text = f"session.extractors = {json.dumps(names)}\n{text}"
        (self.folder / "rollout-token.toml").write_text(text if self.whole else self.localized(text))
        for problem in schema().iter_errors(tomllib.loads(text)):
            return f"config-schema: {problem.json_path}: {problem.message}"
        command = "rollout-token --config rollout-token.toml"
        return self.serve(f"{command} serve") if self.whole else self.run(f"{command} check-config", environment=self.fresh)

    def check_sh(self, block: Block) -> str:
        text = self.localized(block.text)
        if block.marker in ("deploy", "online", "other"):
            return self.run(text, options="-n")
        if block.marker == "server":
            return self.serve(text)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if all(VARIABLE.match(line) for line in lines):
            # The block contains environment variables, as in an environment file or a manifest.
            if "ROLLOUT_CLIENT_SECRET_FILE=" in text:
                self.environment.pop("ROLLOUT_CLIENT_SECRET", None)
            problem = self.run(text, options="-a")
            check = "ROLLOUT__SESSION__EXTRACTORS" in text
            return problem or (self.run("rollout-token check-config") if check else "")
        # A page shows the file and the variables as alternatives: a reader who writes the file sets no variables.
        reads_file = text.startswith("rollout-token --config rollout-token.toml ")
        return self.run(text, environment=self.fresh if reads_file else None)

    def run(self, text: str, options: str = "-e", environment: dict[str, str] | None = None) -> str:
        """Runs commands in bash. Returns a description of the failure, or an empty string. The next block gets the
        variables that the commands export, unless `environment` is given."""
        command = ["bash", options, "-uo", "pipefail", "-c", f"{text}\nenv -0 >exported\n"]
        options = {"cwd": self.folder, "env": environment or self.environment, "start_new_session": True}
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, text=True, **options)
        try:
            self.output, _ = program.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            return f"did not end within {TIMEOUT} s: mark a block that starts a server as `sh,server`"
        if program.returncode != 0:
            return f"exit code {program.returncode}\n{self.output}"
        exported = self.folder / "exported"
        if not environment and exported.exists():
            pairs = exported.read_text().split("\0")
            self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        return ""

    def serve(self, text: str) -> str:
        # Stop the previous server first, as a reader does before starting another one on its port.
        self.end()
        log = self.folder / "server.log"
        with log.open("wb") as out:
            # `exec` replaces the shell with the program, so that stopping this process stops the program.
            command = ["bash", "-euc", f"exec env {text}"]
            self.servers.append(
                subprocess.Popen(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=STDOUT)
            )
        deadline = time.monotonic() + 30
        while not answers(int(self.ports["8080"])):
            if self.servers[-1].poll() is not None or time.monotonic() > deadline:
                return f"did not start\n{log.read_text()}"
            time.sleep(0.02)
        return ""

    def check_json(self, block: Block) -> str:
        shown = json.loads(block.text)
        try:
            printed = json.loads(self.output)
        except ValueError:
            return ""
        # After a command that prints JSON, this block is the command's output, with the same members.
        self.output = ""
        return "" if set(shown) == set(printed) else f"the preceding command prints other members: {sorted(printed)}"

    def check_js(self, block: Block) -> str:
        path = self.folder / "block.mjs"
        path.write_text(block.text)
        return self.run("node --check block.mjs")

    def check_jsx(self, block: Block) -> str:
        (self.folder / "block.jsx").write_text(block.text)
        script = """
            const { readFileSync } = require("fs");
            const { transpileModule, JsxEmit } = require(process.argv[1]);
            const options = { reportDiagnostics: true, fileName: "block.jsx", compilerOptions: { jsx: JsxEmit.Preserve } };
            const { diagnostics } = transpileModule(readFileSync("block.jsx", "utf8"), options);
            for (const { messageText } of diagnostics) console.log(messageText);
            process.exit(diagnostics.length);
        """
        return self.run(f"node -e {shlex.quote(script)} {ROOT}/target/browser/node_modules/typescript")

    def check_python(self, block: Block) -> str:
        ast.parse(block.text)
        return ""

    def check_rust(self, block: Block) -> str:
        if block.marker != "crate":
            return "mark it `rust,crate`, and put the Cargo.toml of its crate in a `toml,crate` block before it"
        (self.folder / "crate/src/main.rs").write_text(block.text)
        manifest, target = self.folder / "crate/Cargo.toml", ROOT / "target"
        return self.run(f'"{CARGO}" check --quiet --offline --manifest-path "{manifest}" --target-dir "{target}"')

    def check_yaml(self, block: Block) -> str:
        list(yaml.safe_load_all(block.text))
        return ""

    def check_nginx(self, block: Block) -> str:
        server = f"server {{ listen 127.0.0.1:{self.ports['8081']}; {self.localized(block.text)} }}"
        (self.folder / "nginx.conf").write_text(f"pid nginx.pid; error_log stderr; events {{}} http {{ {server} }}")
        return self.run('/usr/sbin/nginx -t -q -p "$PWD" -c nginx.conf')

    def check_caddyfile(self, block: Block) -> str:
        (self.folder / "Caddyfile").write_text(block.text)
        return self.run("caddy adapt --config Caddyfile >/dev/null")

    def check_ruby(self, block: Block) -> str:
        path = self.folder / "block.rb"
        path.write_text(block.text)
        return self.run("ruby -c block.rb")

    def end(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def prose(text: str) -> str:
    """Returns the text without fenced code blocks, in which `#` and `[…](…)` are not headings or links."""
    kept, fence = [], None
    for line in text.splitlines():
        marks = FENCE.match(line)
        if fence:
            fence = None if line.strip() == fence else fence
        elif marks:
            fence = marks[2]
        else:
            kept.append(line)
    return "\n".join(kept)


def anchors(path: Path) -> set[str]:
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path.read_text()), re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = sum(1 for known in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known))
        found.add(f"{slug}-{count}" if count else slug)
    return found


def links(path: Path) -> list[str]:
    """Returns the problems with the links of a page."""
    problems = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(path.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            problems.append(f"{target}: there is no such file")
        elif ROOT / "docs" in path.parents and ROOT / "docs" not in file.parents:
            problems.append(f"{target}: is outside docs/, so the site does not contain it; write the name without a link")
        elif anchor and anchor not in anchors(file):
            problems.append(f"{target}: there is no such heading")
    return problems


def summary() -> list[str]:
    """Returns the problems with the site's table of contents."""
    listed = re.findall(r"\]\(([^)]+\.md)\)", SUMMARY.read_text())
    pages = {str(page.relative_to(SUMMARY.parent)) for page in SUMMARY.parent.rglob("*.md")} - {SUMMARY.name}
    problems = [f"{page} is not listed" for page in sorted(pages - set(listed))]
    problems += [f"{page} is listed but does not exist" for page in sorted(set(listed) - pages)]
    return problems + [f"{page} is listed twice" for page in sorted({page for page in listed if listed.count(page) > 1})]


def pages() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")]
    return sorted(path for path in found if "node_modules" not in path.parts)


def main() -> None:
    names = sys.argv[1:]
    chosen = [Path(name).resolve() for name in names] or pages()
    failed, exceptions, count = 0, [], 0

    def report(where: str, problems: list[str]) -> None:
        nonlocal failed
        for problem in problems:
            failed += 1
            print(f"FAILED  {where}: {problem}", flush=True)

    for path in chosen:
        name = path.relative_to(ROOT)
        with tempfile.TemporaryDirectory() as folder:
            page = Page(Path(folder), path in WHOLE)
            try:
                for block in blocks(path.read_text()):
                    count += 1
                    problem = page.check(block)
                    report(f"{name}:{block.line}", [problem] if problem else [])
                    if block.marker in ("deploy", "online", "other"):
                        exceptions.append(f"{name}:{block.line} {block.marker}")
            finally:
                page.end()
        report(str(name), links(path))
    report("docs/SUMMARY.md", summary())
    for exception in exceptions:
        place, marker = exception.split()
        print(f"not run {place}: {MARKERS[marker]}")
    print(f"{len(chosen)} pages, {count} blocks, {len(exceptions)} of them not run; {failed} failed")
    sys.exit(failed > 0)


main()
