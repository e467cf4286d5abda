"""KubeRay manifests: every field is known, every pod is confined, nothing but the API is reachable."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from cluster.config.specification import read_specification
from tests.deploy_files.manifests import KUBERAY, ROOT, Manifest, built, load, named, pods, problems, yaml

OVERLAYS = ("aws", "minio")
JOBS = sorted((KUBERAY / "jobs").glob("*.yaml"))
FILES = sorted(path for path in KUBERAY.rglob("*.yaml"))
SPECIFICATIONS = sorted(KUBERAY.rglob("sisa.toml"))
_BY_KUBERAY = {"ray.io/node-type": "worker"}
"""What KubeRay adds to the labels of a worker's pod (KubeRay 1.7, ray-operator/controllers/ray/utils/constant.go)."""
VARIABLES = {"AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "RAY_gcs_rpc_server_reconnect_timeout_s"}
"""Environment variables of the containers; there is no credential among them."""
CLUSTERS = (("RayCluster", "sisa"), ("RayService", "sisa-serve"))


@pytest.fixture(params=OVERLAYS, name="manifests")
def _manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """What an overlay applies."""
    return built(KUBERAY / "overlays" / request.param)


def _clusters(manifests: list[Manifest]) -> list[Manifest]:
    return [named(manifests, kind, name) for kind, name in CLUSTERS]


def _pods(manifests: list[Manifest]) -> list[Manifest]:
    return [pod for cluster in _clusters(manifests) for pod in pods(cluster)]


def _spec(cluster: Manifest) -> Manifest:
    spec: Manifest = cluster["spec"].get("rayClusterConfig", cluster["spec"])
    return spec


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERAY)))
def test_every_file_is_yaml(path: Path) -> None:
    """Every YAML file loads, and is a manifest, a kustomization, or a list of JSON patches."""
    for document in load(path):
        if isinstance(document, list):
            assert all(operation.keys() == {"op", "path", "value"} for operation in document)
        else:
            assert problems(document, document["kind"]) == []


def test_what_is_applied_is_well_formed(manifests: list[Manifest]) -> None:
    """Put together, patched and with images named, every manifest keeps to its schema, and each is there once."""
    assert [problem for manifest in manifests for problem in problems(manifest, manifest["kind"])] == []
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)
    kinds = {"RayCluster", "RayService", "NetworkPolicy", "ServiceAccount", "ConfigMap", "Namespace"}
    assert {kind for kind, _ in names} == kinds | {"PodDisruptionBudget"}
    assert {each["metadata"]["namespace"] for each in manifests if each["kind"] != "Namespace"} == {"sisa"}


def test_monitoring_is_well_formed() -> None:
    """The monitoring manifests keep to their schemas and look at the pods' own label and port."""
    manifests = built(KUBERAY / "monitoring")
    assert [problem for manifest in manifests for problem in problems(manifest, manifest["kind"])] == []
    monitor = named(manifests, "PodMonitor", "sisa")
    assert monitor["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/part-of": "sisa-ray"}
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("authOption", {"mode": "token"}),
        ("rayVersion", "latest"),
        ("authOptions", {"mode": "basic"}),
        ("gcsFaultToleranceOptions", {"backend": "etcd"}),
    ],
)
def test_the_schema_refuses_what_is_not_there(place: str, value: object) -> None:
    """A misspelt or invented field is found: the checks of this file are not empty."""
    cluster = load(KUBERAY / "base" / "raycluster.yaml")[0]
    cluster["spec"][place] = value
    assert len(problems(cluster, "RayCluster")) == 1


def test_ray_asks_for_a_token(manifests: list[Manifest]) -> None:
    """Every cluster has token authentication, with a token that KubeRay draws, and Ray's version of constraints.txt."""
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    for cluster in _clusters(manifests):
        assert _spec(cluster)["authOptions"] == {"mode": "token"}
        assert _spec(cluster)["rayVersion"] == pinned.group(1)


def test_the_head_may_be_lost(manifests: list[Manifest]) -> None:
    """Ray's metadata is on a volume of its own, no worker is placed beside it, and workers go on without it."""
    for cluster in _clusters(manifests):
        options = _spec(cluster)["gcsFaultToleranceOptions"]
        assert options["backend"] == "rocksdb"
        assert options["storage"]["size"].endswith("Gi")
        assert _spec(cluster)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in _spec(cluster)["workerGroupSpecs"]:
            (container,) = group["template"]["spec"]["containers"]
            assert {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "86400"} in container["env"]


def test_every_pod_is_confined(manifests: list[Manifest]) -> None:
    """No root, no privileges, no writable image, no token for Kubernetes; limits on everything."""
    for pod in _pods(manifests):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() >= {"cpu", "memory", "ephemeral-storage"}
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
            assert not container["image"].endswith(":latest")
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_what_ray_spills_stays_in_memory(manifests: list[Manifest]) -> None:
    """The folder that Ray spills to is one in memory, in every pod (E12)."""
    for cluster in _clusters(manifests):
        groups = [_spec(cluster)["headGroupSpec"], *_spec(cluster)["workerGroupSpecs"]]
        assert {group["rayStartParams"]["object-spilling-directory"] for group in groups} == {"/var/spill"}
    for pod in _pods(manifests):
        (mount,) = [each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["mountPath"] == "/var/spill"]
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == mount["name"]]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert volume["emptyDir"]["sizeLimit"]


def test_no_key_lies_in_any_file(manifests: list[Manifest]) -> None:
    """Nothing applied is a Secret, and no variable or text holds a credential: roles and mounted files do."""
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    for pod in _pods(manifests):
        for variable in pod["spec"]["containers"][0].get("env", []):
            assert variable["name"] in VARIABLES
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted(KUBERAY.rglob("*")) if path.is_file())
    assert re.search(r"AKIA[0-9A-Z]{16}|aws_secret|SECRET_ACCESS_KEY|auth_token:|password", texts) is None


def test_servers_and_trainers_are_not_the_same_to_the_cloud(manifests: list[Manifest]) -> None:
    """Servers run under another account than writers, and on AWS under another role."""
    accounts = [{pod["spec"]["serviceAccountName"] for pod in pods(cluster)} for cluster in _clusters(manifests)]
    assert accounts == [{"sisa-trainer"}, {"sisa-server"}]
    made = [named(manifests, "ServiceAccount", name) for name in ("sisa-trainer", "sisa-server")]
    assert all(account["automountServiceAccountToken"] is False for account in made)
    roles = [account["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn") for account in made]
    assert roles == [None, None] or len({*roles} - {None}) == 2


def test_the_specification_is_where_commands_look_for_it(manifests: list[Manifest]) -> None:
    """Every pod has the specification at the same path, as a file and not as a link into a folder of the pod's own."""
    assert named(manifests, "ConfigMap", "sisa-federation")["data"].keys() == {"sisa.toml"}
    for pod in _pods(manifests):
        (mount,) = [
            each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["mountPath"].startswith("/etc/sisa")
        ]
        assert (mount["mountPath"], mount["subPath"]) == ("/etc/sisa/sisa.toml", "sisa.toml")


def test_servers_are_not_all_lost_at_once(manifests: list[Manifest]) -> None:
    """Servers run on different machines; machines are emptied one server at a time, of two at least."""
    service = named(manifests, "RayService", "sisa-serve")
    head, server = pods(service)
    (group,) = _spec(service)["workerGroupSpecs"]
    chosen = {**server["metadata"]["labels"], **_BY_KUBERAY}
    on_machines, in_zones = server["spec"]["topologySpreadConstraints"]
    assert (on_machines["topologyKey"], on_machines["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert (in_zones["topologyKey"], in_zones["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
    for constraint in (on_machines, in_zones):
        assert constraint["labelSelector"]["matchLabels"].items() <= chosen.items()
        assert constraint["matchLabelKeys"] == ["ray.io/cluster"]
    (budget,) = [each for each in manifests if each["kind"] == "PodDisruptionBudget"]
    selected = budget["spec"]["selector"]["matchLabels"]
    assert selected.items() <= chosen.items()
    assert not selected.items() <= {**head["metadata"]["labels"], "ray.io/node-type": "head"}.items()
    for pod in pods(named(manifests, "RayCluster", "sisa")):
        assert not selected.items() <= {**pod["metadata"]["labels"], **_BY_KUBERAY}.items()
    assert budget["spec"]["minAvailable"] < group["minReplicas"]


@pytest.mark.parametrize("path", SPECIFICATIONS, ids=lambda path: path.parent.name)
def test_every_specification_loads(path: Path) -> None:
    """The overlays' specifications are valid, meant for the pod's own cluster, and keep keys and witness apart."""
    specification = read_specification(path)
    assert specification.cluster.address == "auto"
    assert specification.serve.host == "0.0.0.0"  # noqa: S104  the pod's; network-policy.yaml says who gets there
    places = (specification.store, specification.keys, specification.receipts.witness)
    assert len({str(place).split("/")[2] for place in places}) == 3
    assert "key" not in tomllib.loads(path.read_text(encoding="utf-8"))["partition"]


# ------------------------------------------------------------------------------------------------------ the network


def _policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"}


def test_what_is_not_allowed_is_refused(manifests: list[Manifest]) -> None:
    """One policy chooses every pod and allows nothing; every pod carries the labels that policies choose by."""
    deny = _policies(manifests)["sisa-deny"]
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert deny.keys() == {"podSelector", "policyTypes"}
    for cluster, component in zip(_clusters(manifests), ("trainer", "server"), strict=True):
        for pod in pods(cluster):
            labels = pod["metadata"]["labels"]
            assert deny["podSelector"]["matchLabels"].items() <= labels.items()
            assert labels["app.kubernetes.io/component"] == component
            assert not any(name.startswith("ray.io/") for name in labels)


def test_names_and_the_store_can_be_reached(manifests: list[Manifest]) -> None:
    """Pods may ask for names (UDP and TCP 53) and reach the store, but not the node's metadata service."""
    policies = _policies(manifests)
    (names,) = policies["sisa-names"]["egress"]
    assert {(port["protocol"], port["port"]) for port in names["ports"]} == {("UDP", 53), ("TCP", 53)}
    (store,) = policies["sisa-store"]["egress"]
    (port,) = store["ports"]
    for peer in store["to"]:
        if "ipBlock" in peer:
            assert port == {"protocol": "TCP", "port": 443}
            assert "169.254.0.0/16" in peer["ipBlock"]["except"]
        else:
            assert peer["namespaceSelector"]["matchLabels"]
    assert policies["sisa-store"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/part-of": "sisa-ray"}


def test_only_the_api_is_for_others(manifests: list[Manifest]) -> None:
    """From outside its cluster a pod is reached at 8000 by labelled clients, else by operator and monitoring."""
    outside = {
        name: {port["port"] for rule in policy.get("ingress", []) for port in rule.get("ports", [])}
        for name, policy in _policies(manifests).items()
        if "ports" in str(policy.get("ingress", ""))
    }
    assert outside == {"sisa-operator": {8265, 8000}, "sisa-api": {8000}, "sisa-metrics": {8080}}
    for name, component in (("sisa-trainers", "trainer"), ("sisa-servers", "server")):
        policy = _policies(manifests)[name]
        (rule,) = policy["ingress"]
        own = {"app.kubernetes.io/component": component}
        assert rule == {"from": [{"podSelector": {"matchLabels": own}}]}
        assert own.items() <= policy["podSelector"]["matchLabels"].items()


# ------------------------------------------------------------------------------------------------------------- jobs


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_jobs_only_ask_the_cluster_that_is_there(path: Path) -> None:
    """A job runs on the coordinator's cluster, brings no environment along, and names no person."""
    (job,) = load(path)
    assert problems(job, "RayJob") == []
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": "sisa"}
    assert "runtimeEnvYAML" not in job["spec"]
    assert "--config /etc/sisa/sisa.toml" in job["spec"]["entrypoint"]
    assert not {"--subject", "--id"} & set(job["spec"]["entrypoint"].split())


def test_an_erasure_job_reads_names_where_the_head_has_them(manifests: list[Manifest]) -> None:
    """The file of names is in a folder that only the head, where jobs run, mounts from a Secret."""
    (job,) = load(KUBERAY / "jobs" / "erase.yaml")
    words = job["spec"]["entrypoint"].split()
    folder = str(Path(words[words.index("--file") + 1]).parent)
    having = [
        pod["spec"]["containers"][0]["name"]
        for pod in pods(named(manifests, "RayCluster", "sisa"))
        if folder in {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    ]
    assert having == ["ray-head"]


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")  # Ray's own
def test_the_service_deploys_our_application(manifests: list[Manifest], tmp_path: Path) -> None:
    """Ray Serve reads the configuration, builds our application from it, and knows the deployment that it adjusts."""
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve.schema import ServeDeploySchema

    service = named(manifests, "RayService", "sisa-serve")
    found = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = found.applications
    assert application.args == {"config": "/etc/sisa/sisa.toml"}
    path = tmp_path / "sisa.toml"
    path.write_text(named(manifests, "ConfigMap", "sisa-federation")["data"]["sisa.toml"], encoding="utf-8")
    module, _, attribute = application.import_path.partition(":")
    built_ = call_user_app_builder_with_args_if_necessary(
        getattr(import_module(module), attribute), {"config": str(path)}
    )
    deployment = built_._bound_deployment
    (adjusted,) = application.deployments
    assert adjusted.name == deployment.name
    assert adjusted.num_replicas <= _spec(service)["workerGroupSpecs"][0]["replicas"]
