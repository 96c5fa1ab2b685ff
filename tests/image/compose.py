"""Tests docker-compose.yml without Docker: runs the demo app and the service as processes, with the same configuration.

Usage: compose.py [BINARY]   (needs PyYAML and node, which the Makefile's target image-test provides)
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/rollout-token").resolve()
CLIENT_ID, CLIENT_SECRET = "compose-client", "a-client-secret-that-is-only-for-this-test-" + "x" * 32

passed = failed = 0


def check(name, good, seen=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"ok      {name}" if good else f"FAILED  {name}: {seen}", flush=True)


def check_file(compose):
    """Checks that the files that `docker compose up` needs exist, and that the service and the app are isolated."""
    service, app = compose["services"]["rollout-token"], compose["services"]["app"]
    for name, part in ("rollout-token", service), ("app", app):
        check(f"{name}: read-only, no capabilities", part["read_only"] and part["cap_drop"] == ["ALL"], part)
        sources = [volume.split(":")[0] for volume in part["volumes"]]
        check(f"{name}: all mounted files exist", all((ROOT / source).is_file() for source in sources), sources)
        check(f"{name}: all secrets that this service uses are declared at the top level", set(part["secrets"]) <= set(compose["secrets"]), part["secrets"])
    check("no port of the service is published", "ports" not in service, service)
    check("the app's port is published on loopback only", app["ports"] == ["127.0.0.1:3000:3000"], app["ports"])
    mounted = [volume.split(":")[1] for volume in service["volumes"]]
    check("the service's command names the mounted configuration file", service["command"][1] in mounted, service["command"])


def check_setup(work, compose):
    """Runs setup.sh in a temporary folder, and checks its results. Returns the folder of the secret files that it wrote,
    which stands in for /run/secrets."""
    copy = work / "examples/compose/setup.sh"
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / "examples/compose/setup.sh", copy)
    (work / ".env").write_text("OTHER=1\nROLLOUT_CLIENT_ID=old\n")
    bare = {"PATH": os.environ["PATH"]}
    given = bare | {"ROLLOUT_CLIENT_ID": CLIENT_ID, "ROLLOUT_CLIENT_SECRET": CLIENT_SECRET}

    def setup(env):
        return subprocess.run([copy], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    half = setup(bare | {"ROLLOUT_CLIENT_ID": CLIENT_ID})
    check("setup.sh refuses a client id without a client secret", half.returncode == 2, half)
    throwaway = setup(bare)
    check("setup.sh generates a throwaway client id and secret", "ROLLOUT_CLIENT_ID='demo-client'" in (work / ".env").read_text(), throwaway)
    again = setup(given)
    check("setup.sh uses the client id and secret from the environment variables", again.returncode == 0, again)
    env = (work / ".env").read_text()
    check("setup.sh keeps the other lines in .env", env == f"OTHER=1\nROLLOUT_CLIENT_ID='{CLIENT_ID}'\n", env)
    check("setup.sh prints no secret", CLIENT_SECRET not in again.stdout + again.stderr)
    files = {name: work / source["file"] for name, source in compose["secrets"].items()}
    check("setup.sh writes every secret of docker-compose.yml", all(file.is_file() for file in files.values()), files)
    modes = {name: oct(file.stat().st_mode & 0o777) for name, file in files.items()}
    check("the container's user can read the secret files", set(modes.values()) == {"0o644"}, modes)
    folder = next(iter(files.values())).parent
    check("other users of the machine cannot enter the secrets folder", folder.stat().st_mode & 0o777 == 0o700, folder.stat())
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    for _ in range(100):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} exited with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def ask(port, method, path, headers=None, form=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = dict(headers or {})
    if form:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection.request(method, path, urlencode(form) if form else None, headers)
    response = connection.getresponse()
    return response.status, response.headers, response.read().decode()


def claims_of(token):
    """Verifies the token's header and signature without a JWT library, and returns its claims."""
    unpad = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # noqa: E731
    signed, _, signature = token.rpartition(".")
    header, payload = (json.loads(unpad(part)) for part in signed.split("."))
    genuine = hmac.compare_digest(unpad(signature), hmac.digest(CLIENT_SECRET.encode(), signed.encode(), hashlib.sha512))
    assert genuine and header == {"typ": "JWT", "alg": "HS512"}, (genuine, header)
    return payload


def check_demo(work, app_port, service_port, service, stop_service):
    def token(headers=None):
        status, answer_headers, body = ask(app_port, "POST", "/rollout/token", headers)
        return status, json.loads(body), answer_headers

    status, body, _ = token()
    check("signed out: 401 no_session", (status, body["code"]) == (401, "no_session"), (status, body))
    proxy_secret = (work / "examples/compose/secrets/demo_proxy_secret").read_text()
    forged = {"X-Demo-User": "root", "X_Demo_User": "root", "X-Demo-Secret": proxy_secret, "Connection": "close, X-Demo-User"}
    status, body, _ = token(forged)
    check("an identity header sent by the browser is ignored", (status, body["code"]) == (401, "no_session"), (status, body))
    status, _, body = ask(app_port, "GET", "/")
    check("signed out: the page has a sign-in form", status == 200 and 'action="/sign-in"' in body, (status, body))
    status, _, body = ask(app_port, "POST", "/sign-in", form={"user": "<b>ann, root"})
    check("a user name with HTML is refused", status == 400, (status, body))

    status, headers, _ = ask(app_port, "POST", "/sign-in", form={"user": "ann"})
    cookie = headers.get("Set-Cookie", "")
    check("sign-in redirects to the page and sets a cookie", status == 303 and "HttpOnly; SameSite=Lax" in cookie, (status, cookie))
    signed_in = {"Cookie": "other=1; " + cookie.split(";")[0]}
    status, _, body = ask(app_port, "GET", "/", signed_in)
    check("signed in: the page greets ann", "Hello, ann" in body, (status, body))
    script = work / "page.js"
    script.write_text(body.partition("<script>")[2].partition("</script>")[0])
    parsed = subprocess.run(["node", "--check", script], capture_output=True, text=True)
    check("the page's script parses and requests the token", parsed.returncode == 0 and "/rollout/token" in body, parsed)

    status, headers, body = ask(app_port, "GET", "/rollout/client.js")
    check("the browser helper is served", status == 200 and "createTokenSource" in body, (status, body[:100]))
    status, _, _ = ask(app_port, "GET", "/rollout/client.js", {"If-None-Match": headers["ETag"]})
    check("the browser helper is revalidated with its ETag: 304", status == 304, status)

    status, body, headers = token(signed_in)
    claims = claims_of(body["token"]) if status == 200 else {}
    check("signed in: the caller gets a token for ann", (claims.get("iss"), claims.get("sub")) == (CLIENT_ID, "ann"), (status, body))
    check("the token expires after 15 minutes", claims and claims["exp"] - claims["iat"] == 900, claims)
    check("the response has Cache-Control: no-store", headers.get("Cache-Control") == "no-store", headers)
    status, body, _ = token(signed_in | forged)
    sub = claims_of(body["token"])["sub"] if status == 200 else None
    check("signed in: forged headers do not change the subject", sub == "ann", (status, body))
    own = f"http://127.0.0.1:{app_port}"
    for name, headers, want in [
        ("a request from the demo page", {"Origin": own, "Sec-Fetch-Site": "same-origin"}, 200),
        ("a request without Sec-Fetch-Site from the demo page", {"Origin": own}, 200),
        ("a request from a page of another origin", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
    ]:
        status, body, _ = token(signed_in | headers)
        check(f"{name}: {want}", status == want, (status, body))

    for name, headers in [
        ("without the secret", {"X-Demo-User": "ann"}),
        ("with a wrong secret", {"X-Demo-User": "ann", "X-Demo-Secret": "x" * 32}),
    ]:
        status, _, body = ask(service_port, "POST", "/rollout/token", headers)
        check(f"a direct request to the service, {name}: 401", status == 401, (status, body))

    ask(app_port, "POST", "/sign-out", signed_in)
    status, body, _ = token(signed_in)
    check("signed out again: 401", status == 401, (status, body))
    stop_service()
    check("the service exits with code 0 on SIGTERM", service.returncode == 0, service.returncode)
    status, body, headers = token()
    check("while the service is stopped, the app responds with 502 and JSON", status == 502 and headers["Content-Type"] == "application/problem+json", body)


def main():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    check_file(compose)
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        secrets = check_setup(work, compose)
        service_port, app_port = free_port(), free_port()
        here = lambda text: text.replace("/run/secrets", str(secrets))  # noqa: E731

        # Use the settings in docker-compose.yml, with this machine's addresses and paths.
        service = compose["services"]["rollout-token"]
        environment = {name: here(value) for name, value in service["environment"].items()} | {
            "ROLLOUT_CLIENT_ID": CLIENT_ID,
            "ROLLOUT__SERVER__LISTEN": f"127.0.0.1:{service_port}",
            "ROLLOUT__SERVER__ADMIN_LISTEN": "127.0.0.1:0",
            "ROLLOUT__EXTRACTORS__APP__TRUSTED_PROXIES": "127.0.0.0/8",
            "ROLLOUT__EXTRACTORS__APP__SHARED_SECRET_FILE": str(secrets / "demo_proxy_secret"),
        }
        command = [arg.replace(service["volumes"][0].split(":")[1], str(ROOT / "config/compose.toml")) for arg in service["command"]]
        app = compose["services"]["app"]
        app_environment = {name: here(value) for name, value in app["environment"].items()} | {
            "PATH": os.environ["PATH"],
            "PORT": str(app_port),
            "ROLLOUT_TOKEN_URL": f"http://127.0.0.1:{service_port}",
        }
        log = open(work / "log", "w")
        try:
            processes.append(subprocess.Popen([BINARY, *command], env=environment, stdout=log, stderr=log))
            processes.append(subprocess.Popen(["node", ROOT / "examples/compose/app.mjs"], env=app_environment, stdout=log, stderr=log))
            wait_for(service_port, processes[0])
            wait_for(app_port, processes[1])

            def stop_service():
                processes[0].terminate()
                processes[0].wait(30)

            check_demo(work, app_port, service_port, processes[0], stop_service)
            processes[1].terminate()
            check("the app exits with code 0 on SIGTERM", processes[1].wait(5) == 0, processes[1].returncode)
            logged = (work / "log").read_text()
            check("the logs contain no secret and no token", CLIENT_SECRET not in logged and "eyJ" not in logged, logged)
        finally:
            for process in processes:
                process.kill()
            if failed:
                print((work / "log").read_text())
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
