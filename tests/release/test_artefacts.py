"""Tests the artefacts of `make release` in target/dist as a user would use them: installs or unpacks each, starts it,
and requests a token. `make release-test` runs all tests, `make deb-test` those of the Debian package. The tests
of the Debian package and of the image need root or sudo."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from service import CLIENT_SECRET, FREE_PORTS, ROOT, serving, subject_of

DIST = ROOT / "target/dist"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
MACHINE = os.uname().machine
AS_ROOT = [] if os.getuid() == 0 else ["sudo"]
ENVIRONMENT = FREE_PORTS | {
    "ROLLOUT_CLIENT_ID": "client-1",
    "ROLLOUT_CLIENT_SECRET": CLIENT_SECRET,
    "ROLLOUT__SESSION__EXTRACTORS": "trusted_header",
    "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER": "X-User",
    "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES": "127.0.0.1",
    "ROLLOUT__SERVER__DRAIN_DELAY": "0s",
}


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def artefact(pattern):
    found = list(DIST.glob(pattern))
    assert len(found) == 1, f"expected one file {pattern}, found {found}: run `make release`"
    return found[0]


def binary():
    return artefact(f"rollout-token-{VERSION}-linux-{MACHINE}")


def in_root(folder):
    """The command prefix that runs a program in another root directory, as user 65534 and without capabilities."""
    chroot = shutil.which("chroot", path=os.environ["PATH"] + ":/usr/sbin")
    return [*AS_ROOT, "setpriv", "--no-new-privs", "--inh-caps=-all", chroot, "--userspec=65534:65534", "--groups=", folder]


def gives_a_token(service):
    status, body = service.token({"X-User": "ann"})
    assert (status, subject_of(body["token"])) == (200, "ann")
    assert service.token()[0] == 401
    assert service.stop() == 0


def test_checksums_are_correct_and_complete():
    sums = dict(reversed(line.split("  ")) for line in artefact("SHA256SUMS").read_text().splitlines())
    files = {path.name: path for path in DIST.iterdir() if path.name != "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert len(files) == 8


def test_binary_is_static_and_serves_a_token(tmp_path):
    assert run(binary(), "--version").strip() == f"rollout-token {VERSION}"
    assert re.search("static-pie linked|statically linked", run("file", binary()))
    # The binary contains no paths of the build machine.
    assert str(Path.home() / ".cargo").encode() not in binary().read_bytes()
    assert str(ROOT).encode() not in binary().read_bytes()
    with serving(tmp_path, ["serve"], ENVIRONMENT, [binary()]) as service:
        gives_a_token(service)


def complete(bash, zsh, fish):
    """Checks that each completion script is valid in its shell and completes a subcommand."""
    run("bash", "-n", bash)
    words = "COMP_WORDS=(rollout-token check-) COMP_CWORD=1; _rollout__token rollout-token check- rollout-token"
    assert run("bash", "--norc", "-c", f"source {bash}; {words}; echo ${{COMPREPLY[@]}}").strip() == "check-config"
    run("zsh", "-n", zsh)
    assert zsh.name == "_rollout-token" and zsh.read_text().startswith("#compdef rollout-token\n")
    completed = run("fish", "--no-config", "--command", f"source {fish}; complete --do-complete 'rollout-token check-'")
    assert completed.startswith("check-config\t")


# ---- The Debian package -----------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """A fresh Debian system, created by debootstrap."""
    base = ROOT / "target/deb/bookworm"
    if not base.exists():
        run(*AS_ROOT, "debootstrap", "--variant=minbase", "--include=systemd", "bookworm", f"{base}.part")
        # In some sandboxes, debootstrap leaves `/proc` mounted.
        subprocess.run([*AS_ROOT, "umount", f"{base}.part/proc"], capture_output=True)
        run(*AS_ROOT, "mv", f"{base}.part", base)
    root = tmp_path / "root"
    # `--one-file-system` skips a mounted `/proc`, which contains endless files.
    run(*AS_ROOT, "cp", "-a", "--one-file-system", base, root)
    run(*AS_ROOT, "chmod", "o+rwx", root / "etc")
    yield root
    run(*AS_ROOT, "rm", "-rf", "--one-file-system", root)


def test_debian_package_can_be_installed_upgraded_and_purged_and_its_binary_serves_a_token(machine, tmp_path):
    package = artefact(f"rollout-token_{VERSION}-*.deb")
    run(*AS_ROOT, "cp", package, machine / "package.deb")
    inside = [*AS_ROOT, "chroot", machine, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]
    run(*inside, "dpkg", "-i", "/package.deb")
    installed = run(*inside, "dpkg", "-L", "rollout-token").split()
    unit = "/usr/lib/systemd/system/rollout-token.service"
    assert {"/usr/bin/rollout-token", unit, "/etc/rollout-token/rollout-token.toml"} <= set(installed)
    assert (machine / unit[1:]).read_bytes() == (ROOT / "deploy/systemd/rollout-token.service").read_bytes()
    assert (machine / "usr/bin/rollout-token").read_bytes() == binary().read_bytes()
    complete(
        machine / "usr/share/bash-completion/completions/rollout-token",
        machine / "usr/share/zsh/vendor-completions/_rollout-token",
        machine / "usr/share/fish/vendor_completions.d/rollout-token.fish",
    )
    # The package does not enable the unit. The administrator can enable it.
    link = machine / "etc/systemd/system/multi-user.target.wants/rollout-token.service"
    assert not link.is_symlink()
    run(*inside, "systemctl", "enable", "rollout-token")
    assert link.is_symlink()

    # Start the service as the unit does: as an unprivileged user, with the client secret in a file.
    config = machine / "etc/rollout-token/rollout-token.toml"
    arguments = ["--config", "/etc/rollout-token/rollout-token.toml"]
    environment = FREE_PORTS | {"ROLLOUT_CLIENT_SECRET_FILE": "/run/client-secret", "PATH": os.environ["PATH"]}
    program = [*in_root(machine), "/usr/bin/rollout-token"]
    new = subprocess.run([*program, *arguments, "check-config"], env=environment, capture_output=True, text=True)
    assert new.returncode == 2 and "session.extractors" in new.stderr, new
    own = config.read_text().replace("# client_id", 'client_id = "client-1" #').replace(
        '# extractors = ["web"]', 'extractors = ["proxy"]'
    )
    own += '[extractors.proxy]\nkind = "trusted_header"\nheader = "X-User"\ntrusted_proxies = ["127.0.0.1"]\n'
    write(config, own)
    write(machine / "run/client-secret", CLIENT_SECRET)
    with serving(tmp_path, [*arguments, "serve"], environment, program) as service:
        gives_a_token(service)

    # An upgrade and a removal keep the configuration file; a purge deletes it.
    run(*inside, "dpkg", "--force-confdef", "--force-confold", "-i", "/package.deb")
    assert config.read_text() == own
    run(*inside, "dpkg", "-r", "rollout-token")
    assert config.exists() and not (machine / "usr/bin/rollout-token").exists()
    run(*inside, "dpkg", "-P", "rollout-token")
    assert not config.exists() and not link.is_symlink()


def write(path, text):
    subprocess.run([*AS_ROOT, "tee", path], input=text, stdout=subprocess.DEVNULL, text=True, check=True)
    run(*AS_ROOT, "chmod", "644", path)


# ---- The image --------------------------------------------------------------------------------------


def test_image_serves_a_token(tmp_path):
    with tarfile.open(artefact(f"rollout-token-{VERSION}-{MACHINE}.oci.tar")) as archive:
        archive.extractall(tmp_path / "oci", filter="data")

    def blob(descriptor):
        path = tmp_path / "oci/blobs" / descriptor["digest"].replace(":", "/")
        assert path.stat().st_size == descriptor["size"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        return path

    (manifest,) = json.loads((tmp_path / "oci/index.json").read_text())["manifests"]
    manifest = json.loads(blob(manifest).read_text())
    config = json.loads(blob(manifest["config"]).read_text())["config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("65534:65534", ["/rollout-token"], ["serve"])
    root = tmp_path / "root"
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer)) as archive:
            archive.extractall(root, filter="data")
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"rollout-token", "etc/ssl/certs/ca-certificates.crt"}
    assert (root / "rollout-token").read_bytes() == binary().read_bytes()
    # The image contains Mozilla's CA certificates, but no others that the build machine trusts.
    certificates = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    mozilla = sorted(Path("/usr/share/ca-certificates/mozilla").glob("*.crt"))
    assert certificates.count("BEGIN CERTIFICATE") == len(mozilla) > 100

    environment = ENVIRONMENT | dict(line.split("=", 1) for line in config["Env"]) | {"PATH": os.environ["PATH"]}
    # User 65534 must be able to enter `root` and every folder above it.
    for folder in (root, *root.parents):
        if folder.is_relative_to(tmp_path.parent):
            folder.chmod(0o755)
    with serving(tmp_path, config["Cmd"], environment, [*in_root(root), *config["Entrypoint"]]) as service:
        gives_a_token(service)


# ---- npm and PyPI packages --------------------------------------------------------------------------


def on_path(*folders):
    """Environment variables whose `PATH` has only these folders, Node's folder and the system's folders."""
    node = Path(shutil.which("node")).resolve().parent
    return ENVIRONMENT | {"PATH": ":".join(map(str, [*folders, node, "/usr/bin", "/bin"])), "HOME": os.environ["HOME"]}


def npm_install(folder):
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    packages = [artefact(f"rollout-token-{VERSION}.tgz"), artefact(f"rollout-token-*-*-{VERSION}.tgz")]
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--silent", *packages, cwd=folder)


def test_npm_package_has_no_install_script_and_serves_a_token(tmp_path):
    npm_install(tmp_path)
    for manifest in (tmp_path / "node_modules").glob("*/package.json"):
        assert "scripts" not in json.loads(manifest.read_text())
    assert (tmp_path / "node_modules/rollout-token-linux-x64/rollout-token").read_bytes() == binary().read_bytes()
    with serving(tmp_path, ["serve"], on_path(), ["npx", "--offline", "rollout-token"]) as service:
        assert service.token({"X-User": "ann"})[0] == 200
        subprocess.run(["pkill", "-TERM", "-P", str(service.process.pid)], check=True)
        service.process.wait(30)
    # Run without npx, the package's command forwards SIGTERM and exits with the service's exit code.
    with serving(tmp_path, ["serve"], on_path(), [tmp_path / "node_modules/.bin/rollout-token"]) as service:
        gives_a_token(service)


def test_npm_command_forwards_arguments_and_exit_codes(tmp_path):
    npm_install(tmp_path)
    started = [tmp_path / "node_modules/.bin/rollout-token", "check-config"]
    assert subprocess.run(started, env=on_path() | {"ROLLOUT_CLIENT_ID": ""}, capture_output=True).returncode == 2


def test_npm_command_reports_a_missing_platform_package(tmp_path):
    npm_install(tmp_path)
    shutil.rmtree(tmp_path / "node_modules/rollout-token-linux-x64")
    done = subprocess.run([tmp_path / "node_modules/.bin/rollout-token"], env=on_path(), capture_output=True, text=True)
    assert done.returncode == 1 and "rollout-token-linux-x64 is not installed" in done.stderr


def test_npm_helper_gets_a_token(tmp_path):
    npm_install(tmp_path)
    with serving(tmp_path, ["serve"], ENVIRONMENT, [binary()]) as service:
        script = f"""
            import {{ createTokenSource }} from "rollout-token/client";
            const url = "http://127.0.0.1:{service.port}/rollout/token";
            console.log(await createTokenSource({{ url, headers: {{ "X-User": "ann" }} }}).get());
        """
        token = run("node", "--input-type=module", "--eval", script, cwd=tmp_path).strip()
        assert subject_of(token) == "ann"


def test_wheel_installs_and_serves_a_token(tmp_path):
    run("python3", "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", "--no-index", "--quiet", artefact(f"rollout_token-{VERSION}-*.whl"))
    command = tmp_path / "venv/bin/rollout-token"
    assert command.read_bytes() == binary().read_bytes()
    with serving(tmp_path, ["serve"], on_path(), [command]) as service:
        gives_a_token(service)


def test_uvx_runs_the_wheel_and_it_serves_a_token(tmp_path):
    uvx = [ROOT / "target/deploy/venv/bin/uvx", "--offline", "--from", artefact(f"rollout_token-{VERSION}-*.whl")]
    with serving(tmp_path, ["serve"], on_path() | {"UV_CACHE_DIR": str(tmp_path / "cache")}, [*uvx, "rollout-token"]) as service:
        gives_a_token(service)


# ---- The archive, the crate and the SBOM ------------------------------------------------------------


def test_archive_has_completions_and_its_binary_serves_a_token(tmp_path):
    with tarfile.open(artefact(f"rollout-token-{VERSION}-linux-{MACHINE}.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / f"rollout-token-{VERSION}-linux-{MACHINE}"
    scripts = folder / "completions"
    complete(scripts / "rollout-token.bash", scripts / "_rollout-token", scripts / "rollout-token.fish")
    assert (folder / "rollout-token").read_bytes() == binary().read_bytes()
    with serving(tmp_path, ["serve"], on_path(), [folder / "rollout-token"]) as service:
        gives_a_token(service)


def test_crate_builds_from_its_packaged_files_without_a_warning():
    package = ["cargo", "package", "--locked", "--offline", "--allow-dirty"]
    done = subprocess.run(package, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    crate = ROOT / f"target/package/rollout-token-{VERSION}.crate"
    with tarfile.open(crate) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"src/main.rs", "config/default.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"} <= names
    assert not any(name.startswith("tests/vectors") for name in names)
    assert crate.stat().st_size < 2 << 20


def test_sbom_lists_dependencies_of_the_lock_file():
    parts = json.loads(artefact(f"rollout-token-{VERSION}.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    own = parts["metadata"]["component"]
    assert (own["name"], own["version"]) == ("rollout-token", VERSION)
    locked = {(package["name"], package["version"]) for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    listed = {(part["name"], part["version"]) for part in parts["components"]}
    assert listed <= locked and {"axum", "jsonwebtoken", "aws-lc-rs"} <= {name for name, _ in listed}
    assert str(ROOT) not in json.dumps(parts)
