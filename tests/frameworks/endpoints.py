"""Tests each `session_endpoint` recipe of docs/recipes whose framework can be installed, with a small app of that
framework: a user signs in to the app, and the service calls the app to find the user. The service's configuration is
read from the recipe. Other cases test products and settings without such a recipe, with a configuration of their own.

Usage: target/interop/venv/bin/python tests/frameworks/endpoints.py [NAME …]
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

import run
from run import NODE, PASSWORD, PYTHON, ROOT, RUBY, USER, Answer, Browser, Programs, Report, equal, refused, subject

# A recipe whose framework cannot be installed from a package registry must contain this sentence.
NOT_RUN = "This recipe was written from the framework's documentation, and was not tested with the framework itself."


@dataclass(frozen=True)
class Case:
    """A framework under test: the folder of its app, its configuration, and how a user signs in and out."""

    name: str
    folder: str
    # The name of a page in docs/recipes, whose first TOML block is used, or a configuration as TOML text.
    recipe: str
    command: list[str]
    user: str
    sign_in: Callable[[Browser, str], None] = run.plain_sign_in
    sign_out: Callable[[Browser, str], None] = run.plain_sign_out
    scheme: str = "http"
    # Additional environment variables for the app.
    environment: dict[str, str] = field(default_factory=dict)
    # The folder below `target` where the app's dependencies are installed.
    libraries: str = "frameworks"
    # The commands that build the app; their programs are in `node_modules/.bin`.
    build: list[list[str]] = field(default_factory=list)
    # Starts a proxy in front of the app, and returns its URL.
    front: Callable[[Programs, Path, str], str] | None = None
    # An additional check, which runs while the user is signed in.
    also: Callable[[Callable[..., Answer], Browser, str], None] | None = None
    # Whether the app refuses a copy of the cookie after the user has signed out.
    knows_copies: bool = True
    # Whether the app redirects plain HTTP requests to HTTPS.
    requires_https: bool = False
    # Whether each call to the app sets a new cookie and invalidates the old one.
    renews: bool = False


class Page(Browser):
    """A browser that shows a page of the app: it sends User-Agent and Referer."""

    def ask(self, method: str, url: str, data: str = "", headers: dict[str, str] = {}) -> Answer:
        origin = f"{self.scheme}://{urlsplit(url).netloc}"
        return super().ask(method, url, data, {"User-Agent": "Browser/1", "Referer": f"{origin}/"} | headers)


def section(keys: str) -> str:
    return f'[session]\nextractors = ["app"]\n\n[extractors.app]\nkind = "session_endpoint"\n{keys}\n'


def toml(case: Case) -> str:
    if case.recipe.startswith("[session]"):
        return case.recipe
    text = (ROOT / f"docs/recipes/{case.recipe}.md").read_text()
    return re.search(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]


def csrf_header(browser: Browser) -> dict[str, str]:
    return {"X-CSRFToken": browser.cookies["csrftoken"], "Content-Type": "application/json"}


def drf_token(ask: Callable[..., Answer], browser: Browser, app: str) -> None:
    status, body = browser.ask("POST", f"{app}/api/token", "{}", csrf_header(browser))
    assert status == 200, body
    bearer = {"Authorization": f"Token {json.loads(body)['token']}"}
    equal(subject(ask(Page(), headers=bearer)), "2")
    refused(ask(Page(), headers={"Authorization": "Token of-nobody"}), "session_invalid")


def allauth_sign_in(browser: Browser, app: str) -> None:
    browser.ask("GET", f"{app}/_allauth/browser/v1/config")
    account = json.dumps({"username": USER, "password": PASSWORD})
    answer = browser.ask("POST", f"{app}/_allauth/browser/v1/auth/login", account, csrf_header(browser))
    equal(answer[0], 200)


def allauth_sign_out(browser: Browser, app: str) -> None:
    answer = browser.ask("DELETE", f"{app}/_allauth/browser/v1/auth/session", "", csrf_header(browser))
    equal(answer[0], 401)


def same_browser_only(ask: Callable[..., Answer], browser: Browser, app: str) -> None:
    """Checks that Flask-Login refuses a session whose User-Agent or client address has changed."""
    cookies = {"Cookie": run.cookie_header(browser.cookies)}
    refused(ask(Page(), headers=cookies | {"User-Agent": "another"}), "session_invalid")
    refused(ask(Page(), headers=cookies | {"X-Forwarded-For": "203.0.113.7"}), "session_invalid")


def lighttpd(programs: Programs, folder: Path, app: str) -> str:
    """Starts lighttpd, a proxy that refuses a POST request without Content-Length (411). Returns its URL."""
    port, parts = run.free_port(), urlsplit(app)
    config = folder / "lighttpd.conf"
    config.write_text(
        f'server.port = {port}\nserver.bind = "127.0.0.1"\nserver.document-root = "{folder}"\n'
        'server.modules = ("mod_proxy")\n'
        f'proxy.server = ("" => (("host" => "{parts.hostname}", "port" => {parts.port})))\n'
    )
    program = programs.start(folder / "lighttpd.log", [shutil.which("lighttpd") or "/usr/sbin/lighttpd", "-D", "-f", str(config)])
    run.wait_until(lambda: run.answers(port), program, folder / "lighttpd.log")
    return f"http://127.0.0.1:{port}"


DRF = Case("Django REST framework", "drf", "django-rest-framework", [PYTHON, "app.py"], "2", run.django_sign_in, run.django_sign_out, also=drf_token)
FLASK_STRONG = Case(
    "Flask-Login with strong protection",
    "flask",
    section(
        'url = "http://app:5000/api/me"\nallow_http = true\ncookies = ["session"]\nsubject = "{id}"\n'
        'context_headers = ["User-Agent", "X-Forwarded-For"]'
    ),
    [PYTHON, "app.py"],
    "17",
    environment={"SESSION_PROTECTION": "strong"},
    also=same_browser_only,
    knows_copies=False,
)
AUTH0 = Case("nextjs-auth0", "nextjs_auth0", "nextjs-auth0", [NODE, "app.mjs"], "auth0|ann", libraries="endpoints", knows_copies=False)
# Over HTTPS, the cookie of Auth.js has the name __Secure-authjs.session-token.
AUTHJS = Case(
    "Auth.js",
    "authjs",
    section('preset = "authjs"\nurl = "http://app:3000/auth/session"\nallow_http = true\nsubject = "{user.id}"'),
    [NODE, "app.mjs"],
    "credentials:0c8e3b1e-user",
    run.authjs_sign_in,
    run.authjs_sign_out,
    knows_copies=False,
)

CASES = [
    DRF,
    replace(DRF, name="Django REST framework behind an HTTPS proxy", scheme="https", environment={"SSL_REDIRECT": "1"}, requires_https=True),
    Case(
        "Rails with force_ssl",
        "rails",
        section('url = "http://app:3000/api/me"\nallow_http = true\ncookies = ["_app_session"]\nsubject = "{id}"'),
        [RUBY, "app.rb"],
        "23",
        scheme="https",
        environment={"FORCE_SSL": "1", "LOAD_DEFAULTS": "7.0"},
        requires_https=True,
        knows_copies=False,
    ),
    Case("allauth headless", "allauth", "allauth-headless", [PYTHON, "app.py"], "2", allauth_sign_in, allauth_sign_out),
    FLASK_STRONG,
    replace(
        FLASK_STRONG,
        name="Flask behind lighttpd, called with POST",
        recipe=section('url = "http://app:80/api/whoami"\nmethod = "POST"\nallow_http = true\ncookies = ["session"]\nsubject = "{id}"'),
        environment={},
        front=lighttpd,
        also=None,
    ),
    Case(
        "Flask-JWT-Extended",
        "flask_jwt",
        section(
            'url = "http://app:5000/api/me"\nallow_http = true\ncookies = ["access_token_cookie"]\nsubject = "{id}"\n'
            "signed_out = [401, 422]"
        ),
        [PYTHON, "app.py"],
        "17",
        knows_copies=False,
    ),
    Case(
        "@supabase/ssr with single-use refresh tokens",
        "supabase_ssr",
        section('url = "http://app:3000/api/me"\nallow_http = true\ncookies = ["sb-127-auth-token"]\nsubject = "{id}"'),
        [NODE, "app.mjs"],
        "3fb1a2c4-user",
        libraries="endpoints",
        renews=True,
    ),
    AUTHJS,
    replace(AUTHJS, name="Auth.js behind an HTTPS proxy", scheme="https"),
    Case("WorkOS AuthKit", "workos", "workos-authkit", [NODE, "app.mjs"], "user_01ANN", libraries="endpoints", renews=True),
    AUTH0,
    replace(AUTH0, name="nextjs-auth0 with a chunked cookie", environment={"APP_NOTE": "x".join(map(str, range(1500)))}),
    Case("SvelteKit", "sveltekit", "sveltekit", [NODE, "build"], "u-17", libraries="endpoints", build=[["vite", "build"]]),
    Case("Nuxt", "nuxt", "nuxt", [NODE, ".output/server/index.mjs"], "u-17", libraries="endpoints", build=[["nuxt", "build"]], knows_copies=False),
]


def service_of(case: Case, programs: Programs, folder: Path, app: str, **added: str) -> Callable[..., Answer]:
    """Starts the service. Returns a function that requests a token as a page of the app would."""
    text, count = re.subn(r"http://app:\d+", app, toml(case))
    assert count == 1, text
    log = folder / f"{len(programs.running)}.log"
    (folder / "service.toml").write_text(text)
    url = programs.service(log, ["--config", str(folder / "service.toml")], added)
    origin = {"Origin": f"{case.scheme}://{urlsplit(url).netloc}"}

    def ask(browser: Browser, headers: dict[str, str] = {}) -> Answer:
        return browser.ask("POST", url, headers=origin | headers)

    return ask


def try_case(case: Case, report: Report) -> None:
    with tempfile.TemporaryDirectory() as name, Programs() as programs:
        folder = Path(name)
        app = start_app(case, programs, folder)
        ask = service_of(case, programs, folder, case.front(programs, folder, app) if case.front else app)
        browser = Page(case.scheme)

        def check(what: str, step: Callable[[], object]) -> bool:
            if report.check(f"{case.name}: {what}", step):
                return True
            print(*(f"{log}:\n{log.read_text()[-2000:]}" for log in folder.glob("*.log")))
            return False

        check("no session", lambda: refused(ask(Page()), "no_session"))
        if not check("signing in", lambda: case.sign_in(browser, app)):
            return
        genuine = dict(browser.cookies)
        check("a token", lambda: equal(subject(ask(browser)), case.user))
        check("another token, with the renewed cookies", lambda: equal(subject(ask(browser)), case.user))
        if case.requires_https:
            untold = service_of(case, programs, folder, app, ROLLOUT__EXTRACTORS__APP__FORWARDED="false")
            check("503 without X-Forwarded-Proto", lambda: equal(ask_with(untold, genuine)[0], 503))
        if case.also:
            check("additional check", lambda: case.also(ask, browser, app))
        for cookie in session_cookies(case, genuine):
            broken = genuine | {cookie: run.tampered(genuine[cookie])}
            check(f"a changed {cookie}", lambda: equal(ask_with(ask, broken)[0], 401))
        if case.renews:
            check("the cookies were renewed", lambda: equal(browser.cookies == genuine, False))
            check("the cookies from before the renewal are refused", lambda: equal(ask_with(ask, genuine)[0], 401))
        genuine = dict(browser.cookies)
        check("signing out", lambda: case.sign_out(browser, app))
        check("signed out", lambda: equal(ask(browser)[0], 401))
        if case.knows_copies:
            check("a copy of the cookies is refused after signing out", lambda: equal(ask_with(ask, genuine)[0], 401))


def start_app(case: Case, programs: Programs, folder: Path) -> str:
    """Copies the app to a folder below its libraries, where Node finds them, builds and starts it. Returns its URL."""
    libraries = ROOT / "target" / case.libraries
    home = libraries / "apps" / case.folder
    shutil.copytree(Path(__file__).parent / case.folder, home, dirs_exist_ok=True)
    options = {"cwd": home, "env": run.BASE | case.environment | {"NODE_PATH": str(libraries / "node_modules")}}
    for step in case.build:
        result = subprocess.run([str(libraries / "node_modules/.bin" / step[0]), *step[1:]], capture_output=True, text=True, **options)
        assert result.returncode == 0, result.stdout + result.stderr
    port, secret = run.free_port(), os.urandom(32).hex()
    options["env"] |= {"PORT": str(port), "HOST": "127.0.0.1", "STATE": str(folder), "SECRET_KEY": secret}
    options["env"] |= {"NUXT_SESSION_PASSWORD": secret, "AUTH_SECRET": secret, "SECRET_KEY_BASE": secret, "APP_USER": USER, "APP_PASSWORD": PASSWORD}
    program = programs.start(folder / "app.log", case.command, **options)
    run.wait_until(lambda: run.answers(port), program, folder / "app.log")
    return f"http://127.0.0.1:{port}"


def session_cookies(case: Case, cookies: dict[str, str]) -> list[str]:
    """The names of the cookies that the configuration forwards, including their chunks."""
    listed = re.search(r"^cookies = \[(.*?)\]", toml(case), re.MULTILINE | re.DOTALL)
    names = re.findall(r'"([^"]+)"', listed[1]) if listed else []
    return [cookie for cookie in cookies if any(re.fullmatch(rf"{re.escape(name)}([._C]?_?\d+)?", cookie) for name in names)]


def ask_with(ask: Callable[..., Answer], cookies: dict[str, str]) -> Answer:
    return ask(Page(), headers={"Cookie": run.cookie_header(cookies)})


def main() -> None:
    report = Report()
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/recipes").glob("*.md")}
    ours = {name for name, text in pages.items() if 'kind = "session_endpoint"' in text.split("```toml", 1)[-1].split("```")[0]}
    tried = {case.recipe for case in CASES} & ours
    marked = {name for name in ours if NOT_RUN in pages[name]}
    report.check("every recipe has a case or says that it was not run", lambda: equal(ours - marked, tried))
    for case in CASES:
        if len(sys.argv) == 1 or case.folder in sys.argv[1:]:
            report.check(f"{case.name}: ran", lambda: try_case(case, report))
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(report.failed > 0)


if __name__ == "__main__":
    main()
