"""Tests deploy/monitoring with the running service: a real Prometheus scrapes it, evaluates the alerts and runs every
query of the dashboard. The tests fail if a query or an alert names a metric or label that does not exist."""

import json
import re
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from service import CLIENT_SECRET, FREE_PORTS, ROOT, eventually, serving

MONITORING = ROOT / "deploy/monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
SCRAPED_AS = "rollout-token"
VARIABLES = {"job": SCRAPED_AS, "instance": ".*", "__rate_interval": "10s", "__range": "10s"}
# Labels that Prometheus adds to each series.
TARGET_LABELS = {"job", "instance", "namespace"}
# The P-256 key of RFC 7517, appendix A.1.
JWKS = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            "kid": "1",
        }
    ]
}


class BackEnd(BaseHTTPRequestHandler):
    """Serves a JWKS, and a session endpoint that returns 200 for ann's cookie and 500 otherwise."""

    def do_GET(self):
        ann = self.headers.get("Cookie") == "sid=ann"
        status, body = (200, JWKS) if self.path == "/jwks" else (200, {"user": {"id": "ann"}}) if ann else (500, {})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service whose metrics have counted tokens, refusals, backend failures and configuration reloads."""
    work = tmp_path_factory.mktemp("service")
    back_end = ThreadingHTTPServer(("127.0.0.1", 0), BackEnd)
    threading.Thread(target=back_end.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{back_end.server_port}"
    config = work / "rollout-token.toml"
    good = f"""
        [session]
        extractors = ["web", "app"]
        [extractors.web]
        kind = "jwt"
        jwks_url = "{at}/jwks"
        issuers = ["https://idp.example.com"]
        audiences = ["app"]
        [extractors.app]
        kind = "session_endpoint"
        url = "{at}/me"
        cookies = ["sid"]
        subject = "{{user.id}}"
    """
    config.write_text(good)
    secret = work / "secret"
    secret.write_text(CLIENT_SECRET)
    environment = {"ROLLOUT_CLIENT_ID": "client", "ROLLOUT_CLIENT_SECRET_FILE": str(secret)}
    with serving(work, ["--config", str(config), "serve"], environment | FREE_PORTS) as service:
        eventually(lambda: service.ask("GET", "/readyz")[0] == 200, "it is ready")
        happen(service)
        for text, word in (("broken", "config_reload_failed"), (good, "config_reloaded")):
            config.write_text(text)
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda: word in service.log(), word)
        yield service
    back_end.shutdown()


def happen(service):
    for headers, status in (
        ({"Cookie": "sid=ann"}, 200),
        ({"Cookie": "sid=bob"}, 503),
        ({}, 401),
        ({"Authorization": "Bearer e30.e30.e30"}, 401),
    ):
        assert service.token(headers)[0] == status, headers


@pytest.fixture(scope="module")
def prometheus(service, tmp_path_factory):
    """Starts a Prometheus that scrapes the service and loads the alerts. Returns a function that calls its HTTP API."""
    work = tmp_path_factory.mktemp("prometheus")
    target = {"targets": [f"127.0.0.1:{service.admin_port}"]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [{"job_name": SCRAPED_AS, "static_configs": [target]}],
    }
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    log = (work / "log").open("w")
    arguments = [f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data"]
    process = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT
    )

    def ask(path, **parameters):
        with urlopen(f"http://{address}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def scraped():
        assert process.poll() is None, (work / "log").read_text()
        try:
            # Wait for three scrapes, because rate() needs at least two samples.
            return ask("query", query=f'count_over_time(up{{job="{SCRAPED_AS}"}}[1m]) > 2 and up == 1')["result"]
        except OSError:
            return None

    try:
        eventually(scraped, "three good scrapes")
        yield ask
    finally:
        process.kill()
        process.wait()


def filled_in(query):
    query = re.sub(r"\$(\w+)", lambda name: VARIABLES[name[1]], query)
    assert "$" not in query, query
    return query


def names_in(query):
    """The service's metrics in a query, with their label matchers, as pairs (name, {label: value})."""
    for name, picks in re.findall(r"(?<![:\w])(rollout_token_\w+)(\{[^}]*\})?", query):
        yield name, dict(re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', picks))


@pytest.mark.parametrize("query", QUERIES)
def test_every_dashboard_query_returns_data(prometheus, query):
    answer = eventually(lambda: prometheus("query", query=filled_in(query))["result"], query)
    # The labels in `by (…)` must exist in the result.
    for label in re.findall(r"by \(([^)]*)\)", query):
        outer = {part.strip() for part in label.split(",")} - {"le"}
        assert all(outer <= series["metric"].keys() for series in answer), answer


def test_prometheus_evaluates_every_rule(prometheus):
    def healthy():
        (group,) = prometheus("rules")["groups"]
        assert len(group["rules"]) == len(RULES["groups"][0]["rules"])
        return all(rule["health"] == "ok" for rule in group["rules"])

    eventually(healthy, "every rule is evaluated without an error")


def test_alerts_and_queries_use_existing_metrics_and_labels(service):
    series, labels = {}, {}
    for line in service.metrics().splitlines():
        if found := re.match(r"(rollout_token_\w+)(?:\{(.*)\})? ", line):
            pairs = re.findall(r'(\w+)="([^"]*)"', found[2] or "")
            series.setdefault(found[1], []).append(dict(pairs))
            labels.setdefault(found[1], set()).update(name for name, _ in pairs)
    codes = {"issued"} | set(json.dumps(service.ask("GET", "/openapi.json")[1]).split('"'))
    looked_at = 0
    for query in QUERIES + [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]:
        for name, picks in names_in(query):
            assert name in series, (name, sorted(series))
            assert picks.keys() <= labels[name] | TARGET_LABELS, (query, labels[name])
            for outcome in picks.get("outcome", "issued").split("|"):
                assert outcome in codes, (query, outcome)
            looked_at += 1
    assert looked_at > 30
    # The label `result` has the values that the queries and alerts compare it with.
    for name in ("rollout_token_config_reloads_total", "rollout_token_jwks_refresh_total"):
        assert any(pairs["result"] == "ok" for pairs in series[name]), series[name]
    assert {"result": "error"} in series["rollout_token_config_reloads_total"]
    assert {pairs["result"] for pairs in series["rollout_token_backend_duration_seconds_count"]} == {"ok", "status"}


def test_every_metric_is_on_the_dashboard(service):
    lines = service.ask("GET", "/metrics", {"Accept": "application/openmetrics-text"}, admin=True)[1].splitlines()
    families = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    queries = " ".join(QUERIES)
    assert {family for family in families if family not in queries} == set()


def test_promtool_accepts_the_metrics(service, tmp_path):
    done = subprocess.run(["promtool", "check", "metrics"], input=service.metrics(), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # promtool needs a timestamp on each OpenMetrics sample, so the test adds one.
    _, text = service.ask("GET", "/metrics", {"Accept": "application/openmetrics-text"}, admin=True)
    assert text.endswith("# EOF\n")
    (tmp_path / "metrics").write_text(re.sub(r"^([^#].*)$", r"\1 1700000000", text, flags=re.M))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "metrics", "data"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_alerts_and_their_tests_pass():
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_firing_test_a_silent_test_and_a_runbook_entry():
    tests = yaml.safe_load((MONITORING / "alerts.test.yaml").read_text())["tests"]
    cases = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    page = (ROOT / "docs/deploy/monitoring.md").read_text()
    for alert in ALERTS:
        assert {(alert["alert"], True), (alert["alert"], False)} <= set(cases), alert["alert"]
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert f"### {alert['alert']}\n" in page, alert["alert"]


def test_dashboard_panels_have_unique_ids_and_do_not_overlap():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["description"] for panel in DASHBOARD["panels"] if panel["type"] != "row")
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    own = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert {name for name in used if not name.startswith("__")} == own
