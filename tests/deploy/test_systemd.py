"""Tests deploy/systemd without booting systemd: systemd-analyze checks the unit, and a process runs with the unit's
command line, environment variables, credentials and signals. tests/release tests the Debian package."""

import re
import shutil
import signal
import socket
import subprocess
import tomllib

import pytest
from service import BINARY, CLIENT_SECRET, FREE_PORTS, ROOT, command, eventually, serving

UNIT = ROOT / "deploy/systemd/rollout-token.service"
CONFIGURED = """
client_id = "client-1"
[session]
extractors = ["proxy"]
[extractors.proxy]
kind = "trusted_header"
header = "X-User"
trusted_proxies = ["127.0.0.1"]
"""


def settings():
    """The unit's settings, as a map from each key to the list of its values."""
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M):
        found.setdefault(name, []).append(value)
    return found


def only(name):
    (value,) = settings()[name]
    return value


@pytest.fixture
def root(tmp_path):
    """A file tree like that of a machine with the installed package and the client secret."""
    for path in ("usr/bin", "usr/lib/systemd/system", "etc/rollout-token", "bin"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "usr/bin/rollout-token").symlink_to(BINARY)
    shutil.copy(UNIT, tmp_path / "usr/lib/systemd/system")
    shutil.copy(ROOT / "deploy/deb/rollout-token.toml", tmp_path / "etc/rollout-token")
    (tmp_path / "etc/rollout-token/client-secret").write_text(CLIENT_SECRET)
    return tmp_path


def started_as_in_the_unit(root):
    program, *arguments = only("ExecStart").split()
    assert program == "/usr/bin/rollout-token"
    (credential,) = settings()["LoadCredential"]
    name, _, source = credential.partition(":")
    credentials = root / "run/credentials/rollout-token.service"
    credentials.mkdir(parents=True)
    shutil.copy(root / source.lstrip("/"), credentials / name)
    environment = dict(line.split("=", 1) for line in settings()["Environment"])
    environment = {name: value.replace("%d", str(credentials)) for name, value in environment.items()}
    return [argument.replace("/etc/", f"{root}/etc/") for argument in arguments], environment


def test_systemd_analyze_accepts_the_unit(tmp_path):
    # systemd-analyze checks that the command exists, so a copy of the unit names /bin/true.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/rollout-token", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_security_exposure_of_the_unit_is_at_most_1_5():
    # `--threshold=15` is an exposure level of 1.5; a service without restrictions has about 10.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unconfigured_service_reports_missing_keys_and_is_not_restarted(root):
    arguments, environment = started_as_in_the_unit(root)
    done = command(arguments, environment)
    assert str(done.returncode) == only("RestartPreventExitStatus"), done
    assert "client_id: " in done.stderr and "session.extractors: " in done.stderr, done.stderr


def test_stop_timeout_exceeds_hard_stop_and_file_limit_exceeds_max_connections(root):
    config = root / "etc/rollout-token/rollout-token.toml"
    config.write_text(CONFIGURED)
    arguments, environment = started_as_in_the_unit(root)
    assert arguments[-1] == "serve"
    done = command([*arguments[:-1], "check-config", "--print"], environment)
    server = tomllib.loads(done.stdout)["server"]
    assert int(only("TimeoutStopSec")) > int(server["hard_stop"].removesuffix("s"))
    assert int(only("LimitNOFILE")) >= server["max_connections"] + 256


def test_service_notifies_systemd_and_reloads_on_sighup_and_stops_on_sigterm(root):
    config = root / "etc/rollout-token/rollout-token.toml"
    # Fill in the installed configuration as its comments describe.
    text = config.read_text()
    client, extractors, *section = re.findall(r'^# ((?:client_id|extractors|kind|oidc_issuer|audiences|\[).*)$', text, re.M)
    assert section[0] == "[extractors.web]", section
    config.write_text(
        text.replace(f"# {client}", 'client_id = "client-1"').replace(f"# {extractors}", 'extractors = ["proxy"]')
        + CONFIGURED[CONFIGURED.index("[extractors") :]
    )
    arguments, environment = started_as_in_the_unit(root)
    assert only("Type") == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(root / "notify"))
        systemd.settimeout(20)
        environment |= FREE_PORTS | {"NOTIFY_SOCKET": str(root / "notify")}
        with serving(root, arguments, environment) as service:
            assert systemd.recv(100).split() == [b"READY=1"]
            assert service.token({"X-User": "ann"})[0] == 200
            assert only("ExecReload") == "/bin/kill -HUP $MAINPID"
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda: "config_reloaded" in service.log(), "the configuration is reloaded")
            assert service.stop() == 0


def test_missing_notify_socket_is_logged_and_does_not_stop_the_service(root):
    (root / "etc/rollout-token/rollout-token.toml").write_text(CONFIGURED)
    arguments, environment = started_as_in_the_unit(root)
    environment |= FREE_PORTS | {"NOTIFY_SOCKET": str(root / "no-listener")}
    with serving(root, arguments, environment) as service:
        assert service.token({"X-User": "ann"})[0] == 200
        eventually(lambda: "cannot notify systemd" in service.log(), "the warning")
