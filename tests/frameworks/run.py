"""Tests the recipes of docs/recipes, except those for `session_endpoint`, which endpoints.py tests. Each recipe is
tested with a small app of its framework: a user signs in to the app, and the service accepts the app's cookie. The
service's configuration is read from the recipe, so a recipe that does not work fails.

Usage: target/interop/venv/bin/python tests/frameworks/run.py [FOLDER …]
"""

import base64
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Callable
from urllib.parse import urlencode, urlsplit

import jwt

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ROOT / "target/frameworks"
BINARY = ROOT / "target/debug/rollout-token"
PYTHON, NODE, RUBY = str(LIBRARIES / "venv/bin/python"), "node", "ruby"
# The client credentials with which the service signs tokens.
CLIENT_ID, CLIENT_SECRET = "client-1", secrets.token_hex(32)
# The environment variables that the programs inherit. Others are left out, because ROLLOUT_… would change the settings.
BASE = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
USER, PASSWORD = "ann", "correct horse battery"


Answer = tuple[int, str]


class Browser:
    """A minimal browser for one host. It stores cookie values unchanged (Python's own cookie jar removes quotes).
    Cookies are not bound to a port, so the app's cookies are sent to the service too, as behind a shared proxy."""

    def __init__(self, scheme: str = "http"):
        self.cookies: dict[str, str] = {}
        # Requests have `X-Forwarded-Proto` with this scheme, as behind a TLS-terminating proxy.
        self.scheme = scheme

    def ask(self, method: str, url: str, data: str = "", headers: dict[str, str] = {}) -> Answer:
        parts = urlsplit(url)
        cookies = {"Cookie": cookie_header(self.cookies)} if self.cookies else {}
        connection = HTTPConnection(parts.netloc, timeout=20)
        proxy = {"X-Forwarded-Proto": self.scheme}
        connection.request(method, parts.path, data, cookies | proxy | headers)
        response = connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            self.keep(cookie)
        return response.status, response.read().decode()

    def keep(self, cookie: str) -> None:
        pair, *rest = cookie.split(";")
        name, value = pair.strip().split("=", 1)
        attributes = {key.strip().lower(): value for key, _, value in (part.partition("=") for part in rest)}
        expires = attributes.get("expires")
        past = expires is not None and parsedate_to_datetime(expires).timestamp() <= time.time()
        # Max-Age takes precedence over Expires (RFC 6265, section 5.3).
        gone = int(attributes["max-age"]) <= 0 if "max-age" in attributes else past
        self.cookies.pop(name, None)
        if not gone:
            self.cookies[name] = value

    def get(self, url: str) -> str:
        return succeeded(self.ask("GET", url))

    def form(self, url: str, **fields: str) -> str:
        return succeeded(self.ask("POST", url, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"}))

    def json(self, url: str, **members: str) -> str:
        headers = {"Content-Type": "application/json", "Origin": f"{self.scheme}://{urlsplit(url).netloc}"}
        return succeeded(self.ask("POST", url, json.dumps(members), headers))


def cookie_header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def succeeded(answer: Answer) -> str:
    assert answer[0] < 400, answer
    return answer[1]


def plain_sign_in(browser: Browser, app: str) -> None:
    browser.form(f"{app}/login", username=USER, password=PASSWORD)


def plain_sign_out(browser: Browser, app: str) -> None:
    browser.form(f"{app}/logout")


def django_sign_in(browser: Browser, app: str) -> None:
    browser.get(f"{app}/login")
    csrf = browser.cookies["csrftoken"]
    browser.form(f"{app}/login", username=USER, password=PASSWORD, csrfmiddlewaretoken=csrf)


def django_sign_out(browser: Browser, app: str) -> None:
    browser.form(f"{app}/logout", csrfmiddlewaretoken=browser.cookies["csrftoken"])


def django_new_password(browser: Browser, app: str) -> None:
    browser.get(f"{app}/new-password")


def devise_sign_in(browser: Browser, app: str) -> None:
    browser.form(f"{app}/users/sign_in", **{"user[email]": USER, "user[password]": PASSWORD})


def devise_sign_out(browser: Browser, app: str) -> None:
    browser.form(f"{app}/users/sign_out")


def devise_timeout(browser: Browser, app: str) -> None:
    browser.form(f"{app}/away")
    left = browser.cookies.copy()
    assert browser.ask("GET", f"{app}/me")[0] != 200, "Devise ends the session"
    browser.cookies = left


def authjs_form(url: str, browser: Browser, **fields: str) -> None:
    csrf = json.loads(browser.get(f"{url.rsplit('/auth/')[0]}/auth/csrf"))["csrfToken"]
    browser.form(url, csrfToken=csrf, **fields)


def authjs_sign_in(browser: Browser, app: str) -> None:
    authjs_form(f"{app}/auth/callback/credentials", browser, username=USER, password=PASSWORD)


def authjs_sign_out(browser: Browser, app: str) -> None:
    authjs_form(f"{app}/auth/signout", browser)


def nextauth_sign_in(browser: Browser, app: str) -> None:
    authjs_sign_in(browser, f"{app}/api")


def nextauth_sign_out(browser: Browser, app: str) -> None:
    authjs_sign_out(browser, f"{app}/api")


def better_auth_sign_in(browser: Browser, app: str) -> None:
    account = {"email": "ann@example.com", "password": PASSWORD}
    Browser(browser.scheme).json(f"{app}/api/auth/sign-up/email", name=USER, **account)
    browser.json(f"{app}/api/auth/sign-in/email", **account)


def better_auth_sign_out(browser: Browser, app: str) -> None:
    browser.json(f"{app}/api/auth/sign-out")


@dataclass(frozen=True)
class Case:
    """A framework under test: the folder of its app, its recipe, and how a user signs in and out."""

    name: str
    folder: str
    recipe: str
    command: list[str]
    cookie: str
    # The app's secret: the environment variable from which the app reads it, and the name of its file in the recipe.
    secret: tuple[str, str]
    sign_in: Callable[[Browser, str], None] = plain_sign_in
    sign_out: Callable[[Browser, str], None] = plain_sign_out
    scheme: str = "http"
    make_secret: Callable[[], str] = lambda: secrets.token_hex(64)
    # Additional environment variables for the app.
    environment: dict[str, str] = field(default_factory=dict)
    # If sessions are not in the cookie: the kind of store, and the name of the recipe's file that contains its URL.
    store: tuple[str, str] | None = None
    # Ends the session without a sign-out. It runs last, because the user may be unable to sign in afterwards.
    ending: Callable[[Browser, str], None] | None = None
    # The error code that the service returns after `ending`.
    ended: str = "session_invalid"
    # The index of the recipe's TOML block. The environment variables and the `explain` command belong to block 0.
    block: int = 0
    # Additional environment variables for the service, as the recipe describes them.
    added: dict[str, str] = field(default_factory=dict)


FLASK = Case("Flask", "flask", "flask", [PYTHON, "app.py"], "session", ("SECRET_KEY", "flask_secret_key"))
DJANGO = Case(
    "Django",
    "django",
    "django",
    [PYTHON, "app.py"],
    "sessionid",
    ("SECRET_KEY", "django_secret_key"),
    django_sign_in,
    django_sign_out,
    environment={"SESSION_BACKEND": "db"},
    store=("sqlite", "db_url"),
    ending=django_new_password,
)
FASTAPI = Case("FastAPI", "starlette", "fastapi", [PYTHON, "app.py"], "session", ("SECRET_KEY", "starlette_secret_key"))
EXPRESS = Case("Express", "cookie_session", "express", [NODE, "app.mjs"], "session", ("SESSION_KEY", "session_keys"))
KOA = Case("Koa", "koa_session", "koa", [NODE, "app.mjs"], "koa.sess", ("SESSION_KEY", "session_keys"))
AUTHJS = Case(
    "Auth.js",
    "authjs",
    "nextauth",
    [NODE, "app.mjs"],
    "authjs.session-token",
    ("AUTH_SECRET", "auth_secret"),
    authjs_sign_in,
    authjs_sign_out,
)
IRON_SESSION = Case(
    "iron-session",
    "iron_session",
    "iron-session",
    [NODE, "app.mjs"],
    "app_session",
    ("SESSION_PASSWORD", "iron_password"),
)
H3 = Case("h3 version 1", "h3", "h3", [NODE, "app.mjs"], "nuxt-session", ("SESSION_PASSWORD", "nuxt_password"))
HAPI = Case("hapi", "hapi", "hapi", [NODE, "app.mjs"], "sid", ("SESSION_PASSWORD", "hapi_password"))
REACT_ROUTER = Case(
    "React Router", "react_router", "react-router", [NODE, "app.mjs"], "__session", ("SESSION_SECRET", "session_secrets")
)
BETTER_AUTH = Case(
    "Better Auth",
    "better_auth",
    "better-auth",
    [NODE, "app.mjs"],
    "better-auth.session_data",
    ("BETTER_AUTH_SECRET", "better_auth_secret"),
    better_auth_sign_in,
    better_auth_sign_out,
)
LARAVEL = Case(
    "Laravel",
    "laravel",
    "laravel",
    ["php", "-S", "127.0.0.1:{port}", "app.php"],
    "laravel_session",
    ("APP_KEY", "app_key"),
    make_secret=lambda: f"base64:{base64.b64encode(secrets.token_bytes(32)).decode()}",
    environment={"SESSION_DRIVER": "database"},
    store=("sqlite", "db_url"),
)
EXPRESS_SESSION = Case(
    "Express with Redis",
    "express_session",
    "express-session",
    [NODE, "app.mjs"],
    "connect.sid",
    ("SESSION_SECRET", "session_secret"),
    store=("redis", "redis_url"),
)
RAILS = Case(
    "Rails",
    "rails",
    "rails",
    [RUBY, "app.rb"],
    "_app_session",
    ("SECRET_KEY_BASE", "secret_key_base"),
    environment={"LOAD_DEFAULTS": "7.0"},
)


def older_rails() -> list[Case]:
    """One case for each row of the recipe's table about older apps, with the row's first `load_defaults` version."""
    recipe = (ROOT / "docs/recipes/rails.md").read_text()
    cases = []
    for defaults, add in re.findall(r"^\| (\d\.\d)[^|]*\| (`.*) \|$", recipe, re.MULTILINE):
        keys = re.findall(r'`(\w+) = "?(\w+)"?`', add)
        added = {f"ROLLOUT__EXTRACTORS__RAILS__{key.upper()}": value for key, value in keys}
        name = f"Rails with the defaults of {defaults}"
        cases.append(replace(RAILS, name=name, environment={"LOAD_DEFAULTS": defaults}, added=added))
    assert len(cases) == 3, recipe
    return cases


# One case for each recipe's first TOML block. CASES adds cases for further blocks and for variants of the apps.
DOCUMENTED = [FLASK, DJANGO, FASTAPI, EXPRESS, KOA, AUTHJS, IRON_SESSION, H3, HAPI, REACT_ROUTER, BETTER_AUTH, RAILS, EXPRESS_SESSION, LARAVEL]
CASES = [
    *DOCUMENTED,
    replace(
        DJANGO,
        name="Django with signed cookies",
        environment={"SESSION_BACKEND": "signed_cookies"},
        store=None,
        ending=None,
        block=1,
    ),
    replace(LARAVEL, name="Laravel with sealed sessions", environment={"SESSION_DRIVER": "database", "SESSION_ENCRYPT": "1"}),
    replace(LARAVEL, name="Laravel with cookies", environment={"SESSION_DRIVER": "cookie"}, store=None, block=2),
    replace(AUTHJS, name="Auth.js over https", cookie="__Secure-authjs.session-token", scheme="https"),
    replace(
        AUTHJS,
        name="Auth.js with a chunked cookie",
        cookie="authjs.session-token.1",
        environment={"APP_PICTURE": f"https://example.com/{'x' * 5000}"},
    ),
    Case(
        "NextAuth v4",
        "nextauth_v4",
        "nextauth",
        [NODE, "app.mjs"],
        "next-auth.session-token",
        ("NEXTAUTH_SECRET", "nextauth_secret"),
        nextauth_sign_in,
        nextauth_sign_out,
        block=1,
    ),
    replace(H3, name="h3 version 2", environment={"APP_H3": "h3-v2"}),
    replace(
        H3,
        name="h3 version 2 with a chunked cookie",
        cookie="nuxt-session.2",
        environment={"APP_H3": "h3-v2", "APP_NOTE": "4000"},
    ),
    *older_rails(),
    replace(
        RAILS,
        name="Rails with Devise and timeout_in",
        command=[RUBY, "devise.rb"],
        sign_in=devise_sign_in,
        sign_out=devise_sign_out,
        ending=devise_timeout,
        ended="session_expired",
        block=1,
    ),
    replace(
        BETTER_AUTH,
        name="Better Auth over HTTPS with encrypted cookies",
        cookie="__Secure-better-auth.session_data",
        scheme="https",
        environment={"APP_SCHEME": "https", "APP_STRATEGY": "jwe"},
        block=1,
    ),
]


class Recipe:
    """The blocks of a recipe that a case runs: the TOML block with secret files, which are in `folder` instead of
    /run/secrets; the environment variables, with these secrets as values; and the `explain` command."""

    def __init__(self, case: Case, folder: Path):
        text = (ROOT / f"docs/recipes/{case.recipe}.md").read_text()
        blocks = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", text.replace("/run/secrets", str(folder)), re.MULTILINE | re.DOTALL)
        tomls = [body for language, body in blocks if language == "toml" and "[session]" in body and "_file" in body]
        shells = [body for language, body in blocks if language == "sh"]
        self.toml = tomls[case.block]
        variables = next(body for body in shells if body.startswith("ROLLOUT__"))
        self.variables = dict(word.split("=", 1) for word in shlex.split(variables, comments=True))
        first = tomllib.loads(self.toml)["extractors"] if case.block == 0 else {}
        for name, keys in first.items():
            for key in (key.removesuffix("_file") for key in keys if key.endswith("_file")):
                value = Path(keys[f"{key}_file"]).read_text().strip()
                self.variables[f"ROLLOUT__EXTRACTORS__{name}__{key}".upper()] = value
        [self.explain] = [body for body in shells if body.startswith("rollout-token --config rollout-token.toml explain")]


class Programs:
    """Starts programs, and stops them at the end of the `with` block."""

    def __enter__(self):
        self.running = []
        return self

    def __exit__(self, *_):
        for program in self.running:
            program.kill()
            program.wait()

    def start(self, log: Path, command: list[str], **options) -> subprocess.Popen:
        with log.open("wb") as out:
            program = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
        self.running.append(program)
        return program

    def store(self, case: Case, folder: Path) -> str:
        """Returns the URL of an empty session store. Starts Redis if the case needs it."""
        if case.store[0] == "sqlite":
            return f"sqlite://{folder}/app.sqlite3"
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
        program = self.start(folder / "redis.log", command)
        wait_until(lambda: answers(port), program, folder / "redis.log")
        return f"redis://127.0.0.1:{port}"

    def app(self, case: Case, folder: Path, secret: str, store: str) -> str:
        """Copies the app to a folder below its libraries, where Node finds them, and starts it. Returns its URL."""
        home = LIBRARIES / "apps" / case.folder
        shutil.copytree(Path(__file__).parent / case.folder, home, dirs_exist_ok=True)
        port = free_port()
        environment = BASE | {"PORT": str(port), "STATE": str(folder), "STORE_URL": store, case.secret[0]: secret}
        environment |= {"APP_USER": USER, "APP_PASSWORD": PASSWORD} | case.environment
        command = [word.replace("{port}", str(port)) for word in case.command]
        program = self.start(folder / "app.log", command, cwd=home, env=environment)
        wait_until(lambda: answers(port), program, folder / "app.log")
        return f"http://127.0.0.1:{port}"

    def service(self, log: Path, arguments: list[str], variables: dict[str, str]) -> str:
        program = self.start(log, [BINARY, "serve", *arguments], env=service_environment(variables))
        listening = re.compile(r'"listening","address":"([^"]*)"')
        wait_until(lambda: listening.search(log.read_text()), program, log)
        return f"http://{listening.search(log.read_text())[1]}/rollout/token"


def service_environment(variables: dict[str, str]) -> dict[str, str]:
    listen = {"ROLLOUT__SERVER__LISTEN": "127.0.0.1:0", "ROLLOUT__SERVER__ADMIN_LISTEN": "127.0.0.1:0"}
    return BASE | {"ROLLOUT_CLIENT_ID": CLIENT_ID, "ROLLOUT_CLIENT_SECRET": CLIENT_SECRET} | listen | variables


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], object], program: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if program.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"did not start: {program.args}\n{log.read_text()}")
        time.sleep(0.05)


def subject(answer: Answer) -> str:
    status, body = answer
    assert status == 200, answer
    required = {"require": ["iss", "sub", "iat", "exp"]}
    token = json.loads(body)["token"]
    return jwt.decode(token, CLIENT_SECRET, algorithms=["HS512"], issuer=CLIENT_ID, options=required)["sub"]


def refused(answer: Answer, code: str) -> None:
    assert (answer[0], json.loads(answer[1]).get("code")) == (401, code), answer


def tampered(value: str) -> str:
    middle = len(value) // 2
    return value[:middle] + ("B" if value[middle] == "A" else "A") + value[middle + 1 :]


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except Exception as problem:  # any exception means that the check failed
            self.failed += 1
            print(f"FAILED  {name}\n{type(problem).__name__}: {problem}", flush=True)
            return False
        self.passed += 1
        print(f"ok      {name}", flush=True)
        return True


def equal(actual: object, expected: object) -> None:
    assert actual == expected, f"{actual!r}, not {expected!r}"


def run(case: Case, report: Report) -> None:
    with tempfile.TemporaryDirectory() as name, Programs() as programs:
        folder = Path(name)
        secret = case.make_secret()
        (folder / case.secret[1]).write_text(f"{secret}\n")
        store = programs.store(case, folder) if case.store else ""
        if case.store:
            (folder / case.store[1]).write_text(f"{store}\n")
        recipe = Recipe(case, folder)
        browser = Browser(case.scheme)
        app = programs.app(case, folder, secret, store)
        (folder / "rollout-token.toml").write_text(recipe.toml)
        services = {"TOML": programs.service(folder / "toml.log", ["--config", str(folder / "rollout-token.toml")], case.added)}
        if case.block == 0:
            services["variables"] = programs.service(folder / "variables.log", [], recipe.variables | case.added)

        def check(what: str, step: Callable[[], object]) -> bool:
            return report.check(f"{case.name}: {what}", step)

        for form, service in services.items():
            check(f"{form}: no session", lambda: refused(Browser().ask("POST", service), "no_session"))
        if not check("signing in", lambda: case.sign_in(browser, app)):
            print((folder / "app.log").read_text())
            return
        user = browser.get(f"{app}/me")
        check("the app recognises the user", lambda: equal(bool(user), True))
        genuine = dict(browser.cookies)
        broken = cookie_header(genuine | {case.cookie: tampered(genuine[case.cookie])})
        for form, service in services.items():
            check(f"{form}: the cookie gets a token for {user}", lambda: equal(subject(browser.ask("POST", service)), user))
            changed = lambda: Browser().ask("POST", service, headers={"Cookie": broken})
            check(f"{form}: a changed cookie", lambda: refused(changed(), "session_invalid"))

        def explain() -> None:
            # Run the recipe's command, with the user's cookies in place of the ellipses.
            filled = re.sub(r"([\w.-]+)=…", lambda found: f"{found[1]}={genuine[found[1]]}", recipe.explain)
            words = shlex.split(filled)
            command = [BINARY, *words[1:]]
            result = subprocess.run(command, cwd=folder, env=service_environment(case.added), capture_output=True, text=True)
            assert result.returncode == 0 and f'subject = "{user}"' in result.stdout, result

        if case in DOCUMENTED:
            check("explain", explain)
        check("signing out", lambda: case.sign_out(browser, app))
        for form, service in services.items():
            check(f"{form}: signed out", lambda: refused(browser.ask("POST", service), "no_session"))
            if case.store:
                kept = {"Cookie": cookie_header(genuine)}
                copy = lambda: Browser().ask("POST", service, headers=kept)
                check(f"{form}: a copy of the cookie is refused after signing out", lambda: refused(copy(), "session_invalid"))
        if case.ending:
            again = Browser(case.scheme)
            check("signing in again", lambda: case.sign_in(again, app))
            for form, service in services.items():
                check(f"{form}: a token again", lambda: equal(subject(again.ask("POST", service)), user))
            check("the session can be ended without signing out", lambda: case.ending(again, app))
            for form, service in services.items():
                check(f"{form}: the session has ended", lambda: refused(again.ask("POST", service), case.ended))


def main() -> None:
    report = Report()
    # endpoints.py tests the recipes whose first TOML block has the kind `session_endpoint`.
    pages = {recipe.stem: recipe.read_text() for recipe in (ROOT / "docs/recipes").glob("*.md")}
    recipes = {name for name, text in pages.items() if 'kind = "session_endpoint"' not in text.split("```toml")[1].split("```")[0]}
    report.check("every recipe has a case", lambda: equal({case.recipe for case in CASES}, recipes))
    for case in CASES:
        if len(sys.argv) == 1 or case.folder in sys.argv[1:]:
            report.check(f"{case.name}: ran", lambda: run(case, report))
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(report.failed > 0)


if __name__ == "__main__":
    main()
