"""Tests deploy/kubernetes without a cluster: kustomize renders the manifests, the API schemas validate them, and the
service runs as a process with the container's environment variables, arguments, files and probes."""

import os
import re
import secrets
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml
from service import CLIENT_SECRET, FREE_PORTS, ROOT, command, eventually, serving, subject_of

MANIFESTS = ROOT / "deploy/kubernetes"
WHOLE = ["base", "overlays/production", "sidecar"]
# The oldest Kubernetes version that supports sidecars, and the newest whose schemas kubernetes_validate contains.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
OF_OPERATORS = {"ServiceMonitor"}


def render(folder):
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, f"`kubectl kustomize` failed (version 1.21 or later is needed):\n{done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(params=WHOLE)
def objects(request):
    return render(MANIFESTS / request.param)


def one(objects, kind):
    (found,) = [document for document in objects if document["kind"] == kind]
    return found


def kinds(objects):
    return {document["kind"] for document in objects}


def pod_of(objects):
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def container_of(pod):
    """The service's container, which is the pod's only container or a sidecar."""
    everyone = pod["containers"] + pod.get("initContainers", [])
    (ours,) = [container for container in everyone if container["name"] == "rollout-token"]
    return ours


# ---- API schemas and cluster policies ---------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_match_the_api_schemas(objects, version):
    checked = 0
    for document in objects:
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 2


def test_object_with_an_unknown_field_fails_schema_validation():
    (service,) = [document for document in render(MANIFESTS / "base") if document["kind"] == "Service"]
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


def test_every_object_except_a_configmap_has_the_name_label(objects):
    for document in objects:
        if document["kind"] != "ConfigMap":
            assert "app.kubernetes.io/name" in document["metadata"]["labels"], document["metadata"]


def test_pod_meets_the_restricted_pod_security_standard(objects):
    pod = pod_of(objects)
    container = container_of(pod)
    security = pod.get("securityContext", {}) | container["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] == security["runAsGroup"] == 65534
    assert security["readOnlyRootFilesystem"] and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all({"configMap", "secret"} & volume.keys() for volume in pod["volumes"])
    for bound in ("requests", "limits"):
        assert container["resources"][bound].keys() == {"cpu", "memory"}


def test_pod_runs_as_the_user_of_the_image():
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.M)
    security = pod_of(render(MANIFESTS / "base"))["securityContext"]
    assert user == (str(security["runAsUser"]), str(security["runAsGroup"]))


def test_selectors_match_the_pod_and_service_labels():
    objects = render(MANIFESTS / "overlays/production")
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(objects, "Service")["spec"]["selector"].items() <= labels.items()
    spread = pod_of(objects)["topologySpreadConstraints"]
    selectors = [one(objects, kind)["spec"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors = [spec["selector"] for spec in selectors] + [part["labelSelector"] for part in spread]
    selectors.append(one(objects, "NetworkPolicy")["spec"]["podSelector"])
    assert all(selector["matchLabels"].items() <= labels.items() for selector in selectors)
    monitor = one(objects, "ServiceMonitor")["spec"]
    service = one(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "rollout-token"


def test_objects_and_ports_referenced_in_manifests_exist():
    objects = render(MANIFESTS / "overlays/production")
    names = {(document["kind"], document["metadata"]["name"]) for document in objects}
    target = one(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in names
    (rule,) = one(objects, "Ingress")["spec"]["rules"]
    ports = {port["name"]: port["targetPort"] for port in one(objects, "Service")["spec"]["ports"]}
    for path in rule["http"]["paths"]:
        service = path["backend"]["service"]
        assert ("Service", service["name"]) in names and service["port"]["name"] in ports
    assert one(objects, "ServiceMonitor")["spec"]["endpoints"][0]["port"] in ports
    container = container_of(pod_of(objects))
    own = {port["name"] for port in container["ports"]}
    assert set(ports.values()) <= own
    policy = one(objects, "NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= own
    assert {document["metadata"]["namespace"] for document in objects} == {"your-app"}


def test_component_backends_allows_egress_to_the_app_and_the_stores(tmp_path):
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(MANIFESTS / "base", tmp_path)],
        "components": [os.path.relpath(MANIFESTS / "components/backends", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.dump(overlay))
    objects = render(tmp_path)
    policy = one(objects, "NetworkPolicy")
    kubernetes_validate.validate(policy, VERSIONS[-1], strict=True)
    before = one(render(MANIFESTS / "base"), "NetworkPolicy")["spec"]["egress"]
    egress = policy["spec"]["egress"]
    assert egress[: len(before)] == before
    added = [(rule["to"][0]["podSelector"]["matchLabels"], rule["ports"]) for rule in egress[len(before) :]]
    name = "app.kubernetes.io/name"
    assert added == [
        ({name: "your-app"}, [{"port": 3000}]),
        ({name: "redis"}, [{"port": 6379}]),
        ({name: "postgresql"}, [{"port": 5432}]),
    ]


@pytest.mark.parametrize("folder", WHOLE)
def test_placeholder_client_id_of_the_manifests_is_refused(folder, tmp_path):
    arguments, environment = started_as_in(render(MANIFESTS / folder), tmp_path)
    del environment["ROLLOUT_CLIENT_ID"]
    done = command([*arguments[:-1], "check-config"], environment)
    assert done.returncode == 2 and "client_id: " in done.stderr, done


def test_production_overlay_scales_on_cpu_and_in_flight_requests():
    metrics = one(render(MANIFESTS / "overlays/production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]


# ---- The service with the manifests' configuration -------------------------------------------------------------------


def mount(volume, path, objects):
    """Creates a volume as the kubelet does: each file links to `..data/FILE`; an update replaces the link `..data`."""
    if "configMap" in volume:
        name = volume["configMap"]["name"]
        (config,) = [o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name]
        files = config["data"]
    else:
        assert volume["secret"]["secretName"] == "rollout-token"
        files = {"client-secret": CLIENT_SECRET}
    path.mkdir(parents=True)
    fill(path, "..first", files)
    for name in files:
        (path / name).symlink_to(f"..data/{name}")


def fill(path, generation, files):
    (path / generation).mkdir()
    for name, text in files.items():
        (path / generation / name).write_text(text)
    (path / "..next").symlink_to(generation)
    (path / "..next").rename(path / "..data")


def started_as_in(objects, root):
    """Creates the container's volumes below `root`. Returns its arguments and variables with paths below `root`."""
    pod = pod_of(objects)
    container = container_of(pod)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    paths = [volume["mountPath"] for volume in container["volumeMounts"]]
    for volume in container["volumeMounts"]:
        assert volume["readOnly"] and "subPath" not in volume
        mount(volumes[volume["name"]], root / volume["mountPath"].lstrip("/"), objects)

    def moved(text):
        return f"{root}{text}" if any(text.startswith(path) for path in paths) else text

    environment = {variable["name"]: moved(variable["value"]) for variable in container["env"]}
    # The service refuses to start with the placeholder client id in rollout-token.toml.
    environment["ROLLOUT_CLIENT_ID"] = "client-1"
    return [moved(argument) for argument in container["args"]], environment


def test_configuration_is_valid_and_its_ports_match_those_of_the_pod(objects, tmp_path):
    arguments, environment = started_as_in(objects, tmp_path)
    assert arguments[-1] == "serve"
    done = command([*arguments[:-1], "check-config", "--print"], environment)
    assert done.returncode == 0, done.stderr
    server = tomllib.loads(done.stdout)["server"]
    pod = pod_of(objects)
    container = container_of(pod)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = {"http": server["listen"], "admin": server["admin_listen"]}
    for name, address in listening.items():
        host, _, port = address.rpartition(":")
        # A pod declares the port of each listener that is not on loopback.
        assert (name in ports) == (host != "127.0.0.1"), (name, address)
        assert ports.get(name, int(port)) == int(port)
    probed = {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
    assert probed <= ports.keys()
    assert pod["terminationGracePeriodSeconds"] > int(server["hard_stop"].removesuffix("s"))
    assert "preStop" not in container.get("lifecycle", {})


def test_sidecar_listens_on_loopback_for_the_app_only(tmp_path):
    arguments, environment = started_as_in(render(MANIFESTS / "sidecar"), tmp_path)
    done = command([*arguments[:-1], "check-config", "--print"], environment)
    assert tomllib.loads(done.stdout)["server"]["listen"] == "127.0.0.1:8080"
    pod = pod_of(render(MANIFESTS / "sidecar"))
    (app,) = pod["containers"]
    assert app["env"] == [{"name": "ROLLOUT_TOKEN_URL", "value": "http://127.0.0.1:8080/rollout/token"}]
    assert container_of(pod)["restartPolicy"] == "Always"


def test_sidecar_serves_a_token_and_reloads_a_changed_secret(tmp_path):
    objects = render(MANIFESTS / "sidecar")
    arguments, environment = started_as_in(objects, tmp_path)
    # A short poll interval makes the test faster.
    environment |= FREE_PORTS | {"ROLLOUT__RELOAD__POLL_INTERVAL": "1s"}
    with serving(tmp_path, arguments, environment) as service:
        container = container_of(pod_of(objects))
        for probe in ("livenessProbe", "readinessProbe"):
            path, port = (container[probe]["httpGet"][key] for key in ("path", "port"))
            status, ready = service.ask("GET", path, admin=port == "admin")
            assert status == 200, ready
        before = service.ask("GET", "/readyz", admin=True)[1]["secret_fingerprint"]
        status, body = service.token({"X-App-User": "ann"})
        assert (status, subject_of(body["token"])) == (200, "ann")
        assert service.token()[0] == 401

        fill(tmp_path / "run/secrets/rollout-token", "..second", {"client-secret": secrets.token_hex(32)})
        eventually(
            lambda: service.ask("GET", "/readyz", admin=True)[1]["secret_fingerprint"] != before,
            f"the service uses the changed secret\n{service.log()}",
        )
        assert service.stop() == 0


def test_pod_without_a_key_set_is_live_and_not_ready(tmp_path):
    objects = render(MANIFESTS / "base")
    arguments, environment = started_as_in(objects, tmp_path)
    with serving(tmp_path, arguments, environment | FREE_PORTS) as service:
        assert service.ask("GET", "/healthz", admin=True)[0] == 200
        status, ready = service.ask("GET", "/readyz")
        assert (status, ready["state"]) == (503, "waiting"), ready


def test_service_exposes_the_metric_that_the_autoscaler_uses(tmp_path):
    metrics = one(render(MANIFESTS / "overlays/production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    arguments, environment = started_as_in(render(MANIFESTS / "sidecar"), tmp_path)
    with serving(tmp_path, arguments, environment | FREE_PORTS) as service:
        names = {line.split()[2] for line in service.metrics().splitlines() if line.startswith("# TYPE")}
    assert {metric["pods"]["metric"]["name"] for metric in metrics if "pods" in metric} <= names
