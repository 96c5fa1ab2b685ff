"""Checks that the versions in other files and in the service's output equal the version in Cargo.toml."""

import json
import re
import tomllib

import yaml
from service import FREE_PORTS, ROOT, command, serving

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def test_versions_in_files_and_output_match_cargo_toml(tmp_path):
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    kubernetes = ROOT / "deploy/kubernetes"
    overlay = yaml.safe_load((kubernetes / "overlays/production/kustomization.yaml").read_text())
    tags = [
        (str(path.relative_to(ROOT)), tag)
        for path in kubernetes.rglob("*.yaml")
        for tag in re.findall(r"image: rollout-token:(\S+)", path.read_text())
    ]
    assert len(tags) == 2
    named = dict(tags) | {
        "Cargo.lock": next(package["version"] for package in locked if package["name"] == "rollout-token"),
        "web/package.json": json.loads((ROOT / "web/package.json").read_text())["version"],
        "the overlay's tag": str(overlay["images"][0]["newTag"]),
        "--version": command(["--version"]).stdout.split()[-1],
    }
    environment = {
        "ROLLOUT_CLIENT_ID": "client",
        "ROLLOUT_CLIENT_SECRET": "0123456789abcdef" * 4,
        "ROLLOUT__SESSION__EXTRACTORS": "trusted_header",
        "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER": "X-User",
        "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES": "127.0.0.1",
    }
    with serving(tmp_path, ["serve"], environment | FREE_PORTS) as service:
        named["/openapi.json"] = service.ask("GET", "/openapi.json")[1]["info"]["version"]
        named["rollout_token_build_info"] = re.search(r'build_info\{version="(.*?)"', service.metrics())[1]
    assert {name: version for name, version in named.items() if version != VERSION} == {}
