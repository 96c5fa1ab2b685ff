"""Runs the `sh,deploy` blocks of the pages in docs/deploy that need a cluster. A fake `kubectl` renders manifests with
the real `kubectl`, and stands in for the API server. tests/docs tests the other blocks of these pages. Another test
checks that the variables in platforms.md are a valid configuration."""

import json
import os
import re
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml
from service import CLIENT_SECRET, ROOT, command

PAGES = ["kubernetes.md", "monitoring.md"]
# The fake kubectl appends created and applied objects to $APPLIED. `kubectl create --dry-run=client` needs no cluster.
STAND_IN = """#!/bin/sh
set -eu
command=$*
[ "$1" != -n ] || shift 2
case "$1 $2" in
"kustomize "*) exec "$KUBECTL" "$@" ;;
"create "*) "$KUBECTL" $command --dry-run=client -o yaml >>"$APPLIED" ; echo --- >>"$APPLIED" ;;
"apply -k") "$KUBECTL" kustomize "$3" >>"$APPLIED" ; echo --- >>"$APPLIED" ;;
"apply -f") [ "$3" = - ] && cat >>"$APPLIED" ; echo --- >>"$APPLIED" ;;
"rollout status" | "label configmap" | "run ask") ;;
*) echo "not expected: kubectl $command" >&2 ; exit 1 ;;
esac
"""


def variables_on_the_page_of_platforms():
    """The environment variables in the blocks of each platform's section, as pairs (heading, {name: value})."""
    text = (ROOT / "docs/deploy/platforms.md").read_text()
    for section in text.split("\n## ")[1:]:
        name, _, body = section.partition("\n")
        found = {}
        for language, block in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", body, re.M | re.S):
            if language == "sh":
                found |= dict(re.findall(r"\b(ROLLOUT_\w+)=([^\s\"]+)", block))
                continue
            parsed = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}[language](block)
            for part in every_table(parsed):
                pairs = [part] if "ROLLOUT_CLIENT_ID" in part else []
                key = part.get("key", part.get("name"))
                pairs += [{key: part["value"]}] if "value" in part else []
                for pair in pairs:
                    found |= {key: text for key, text in pair.items() if key.startswith("ROLLOUT_")}
        yield name, found


def every_table(value):
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from every_table(item)


@pytest.mark.parametrize("platform, variables", list(variables_on_the_page_of_platforms()))
def test_variables_of_each_platform_are_a_valid_configuration(platform, variables):
    # Railway's section has no variables: they are set in its dashboard, from the list at the top of the page.
    assert platform == "Railway" or "ROLLOUT__SESSION__EXTRACTORS" in variables, variables
    if "ROLLOUT__SESSION__EXTRACTORS" not in variables:
        return
    environment = {name: str(text) for name, text in variables.items()}
    done = command(["check-config"], environment | {"ROLLOUT_CLIENT_ID": "my-client", "ROLLOUT_CLIENT_SECRET": CLIENT_SECRET})
    assert (done.returncode, done.stderr) == (0, ""), done


def commands(page):
    text = (ROOT / "docs/deploy" / page).read_text()
    blocks = re.findall(r"^( *)```sh,deploy\n(.*?)^ *```$", text, re.M | re.S)
    return "".join(re.sub(f"^{indent}", "", block, flags=re.M) for indent, block in blocks)


@pytest.fixture(params=PAGES)
def applied(request, tmp_path):
    """Runs a page's commands. Returns the page, and the objects that the commands apply to the cluster."""
    stand_in = tmp_path / "bin/kubectl"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    # `docker` does nothing here: tests/image tests the image.
    (stand_in.parent / "docker").symlink_to("/bin/true")
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "client-secret").write_text(CLIENT_SECRET)
    real = subprocess.run(["which", "kubectl"], capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "KUBECTL": real,
        "APPLIED": str(tmp_path / "applied.yaml"),
    }
    script = commands(request.param)
    assert script.count("kubectl") >= 3, script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    objects = yaml.safe_load_all((tmp_path / "applied.yaml").read_text())
    return request.param, [document for document in objects if document]


def test_commands_on_the_page_create_the_described_objects(applied):
    page, objects = applied
    kinds = {document["kind"] for document in objects}
    for document in objects:
        if document["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    if page == "kubernetes.md":
        (secret,) = [document for document in objects if document["kind"] == "Secret"]
        mounted = [
            volume["secret"]["secretName"]
            for document in objects
            if document["kind"] == "Deployment"
            for volume in document["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        ]
        assert [secret["metadata"]["name"]] == mounted and secret["data"].keys() == {"client-secret"}
        assert {"Namespace", "Deployment", "Service", "Ingress", "ServiceMonitor"} <= kinds
    else:
        (rule,) = [document for document in objects if document["kind"] == "PrometheusRule"]
        assert rule["spec"] == yaml.safe_load((ROOT / "deploy/monitoring/alerts.yaml").read_text())
        assert "ConfigMap" in kinds


def test_files_listed_on_the_kubernetes_page_exist():
    named = re.findall(r"^\| `([\w./-]+)` \|", (ROOT / "docs/deploy/kubernetes.md").read_text(), re.M)
    assert len(named) == 11
    for name in named:
        assert (ROOT / "deploy/kubernetes" / name).exists(), name
