"""The files of cluster/ against this repository, the versions it pins and Ray's own validators. Nothing is started."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
VERBS = {"prepare", "extract", "train", "tune", "evaluate", "export", "predict", "serve", "quickstart", "doctor"}
TEXTS = sorted(p for p in CLUSTER.iterdir() if p.is_file())


def documents() -> list[dict]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text(encoding="utf-8")))


def of_kind(kind: str) -> dict:
    (found,) = [d for d in documents() if d["kind"] == kind]
    return found


def cluster_specs() -> dict[str, dict]:
    return {
        "RayCluster": of_kind("RayCluster")["spec"],
        "RayJob": of_kind("RayJob")["spec"]["rayClusterSpec"],
        "RayService": of_kind("RayService")["spec"]["rayClusterConfig"],
    }


def groups(spec: dict) -> list[dict]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def containers(spec: dict) -> list[dict]:
    return [c for group in groups(spec) for c in group["template"]["spec"]["containers"]]


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number: `500m`, `8Gi`, `2`."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return float(number) * {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def pinned_ray() -> str:
    """The Ray version that the image gets: from constraints.txt."""
    (version,) = re.findall(r"(?mi)^ray(?:\[[^]]*\])?==([0-9.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    return version


def commands(text: str) -> list[list[str]]:
    """Every `python -m sign_dist ...` of a text, as words; `\\` at a line's end continues it."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [shlex.split(line) for line in re.findall(r"python -m sign_dist ([a-z][^\n`#]*)", joined)]


def check_command(words: list[str]) -> None:
    """The verb exists; a job's file exists and its overrides are settings that hold."""
    assert words[0] in VERBS, words
    if words[0] == "train":
        from sign_dist.config.source import load_run

        run = load_run(ROOT / words[1].removeprefix("/app/"), [word for word in words[2:] if re.match(r"[a-z_.]+=", word)])
        assert run.task == "islr"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_no_secret_and_no_floating_tag(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[:=]latest\b", text)
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|ghp_\w{20}|hf_\w{20}", text)
    assert not re.search(r"RAY_AUTH_TOKEN=['\"]?[0-9a-f]{8}", text)


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_a_kuberay_document_has_what_the_operator_requires(kind):
    document = of_kind(kind)
    assert document["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", document["metadata"]["name"])
    spec = cluster_specs()[kind]
    assert spec["authOptions"] == {"mode": "token"}
    assert [group["groupName"] for group in spec["workerGroupSpecs"]]
    for group in groups(spec):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert pod["containers"]
        assert pod["securityContext"]["runAsUser"] > 0
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "/mnt/shared" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_requests_stay_within_limits_and_a_gpu_pod_has_a_gpu_image(kind):
    for container in containers(cluster_specs()[kind]):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= requests.keys() == limits.keys()
        assert all(quantity(requests[name]) <= quantity(limits[name]) for name in requests)
        assert container["image"].endswith("-gpu" if "nvidia.com/gpu" in limits else "-cpu")


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_the_manifest_and_the_image_have_one_ray(kind):
    assert cluster_specs()[kind]["rayVersion"] == pinned_ray()


def test_the_pinned_ray_is_one_that_the_package_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bounds,) = [d for d in project["dependencies"] if d.startswith("ray[")]
    low, high = re.search(r">=([0-9.]+),<([0-9.]+)", bounds).groups()
    version, low, high = ([int(part) for part in text.split(".")] for text in (pinned_ray(), low, high))
    assert low <= version < high


def test_every_volume_claim_is_the_shared_one():
    claim = of_kind("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for spec in cluster_specs().values():
        for group in groups(spec):
            claims = [v["persistentVolumeClaim"] for v in group["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]
            assert [c["claimName"] for c in claims] == [claim["metadata"]["name"]]


def test_the_job_is_a_command_of_ours_and_asks_for_the_workers_it_brings():
    spec = of_kind("RayJob")["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "sign_dist"]
    assert words[words.index("--address") + 1] == "auto"
    check_command(words[3:])
    workers = next(int(word.partition("=")[2]) for word in words if word.startswith("scale.workers="))
    assert workers <= sum(group["maxReplicas"] for group in spec["rayClusterSpec"]["workerGroupSpecs"])


def test_the_service_serves_an_app_that_exists():
    config = yaml.safe_load(of_kind("RayService")["spec"]["serveConfigV2"])
    for application in config["applications"]:
        module, _, name = application["import_path"].partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert application["args"]["bundle"].startswith("/mnt/shared/")


def test_the_readme_shows_commands_of_ours():
    found = commands((CLUSTER / "README.md").read_text(encoding="utf-8"))
    assert found
    for words in found:
        check_command(words)


def test_the_readme_names_every_file():
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in text for path in TEXTS if path.name != "README.md")


def test_the_image_copies_what_exists_and_runs_as_nobody_special():
    text = re.sub(r"\\\n\s*", " ", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"))
    copied = [source for line in re.findall(r"(?m)^COPY (.+)$", text) for source in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "sign_dist", "jobs", "tune_spaces", "serve_apps"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert re.findall(r"(?m)^USER (\S+)", text) == ["ray"]
    assert all(re.search(r":\d", image) for image in re.findall(r"(?m)^FROM (\S+)", text))
    assert "--constraint constraints.txt" in text
    # KubeRay's probes call it; without it no pod ever becomes ready.
    assert re.search(r"apt-get install [^&]*\bwget\b", text)


def test_a_submitted_job_leaves_data_runs_and_packages_at_home():
    environment = yaml.safe_load((CLUSTER / "runtime_env.yaml").read_text(encoding="utf-8"))
    assert {".venv/", ".git/", "data/", "runs/"} <= set(environment["excludes"])
    assert all(isinstance(value, str) for value in environment["env_vars"].values())
    assert not {"pip", "conda", "uv"} & environment.keys()
    assert not [name for name in environment["env_vars"] if "TOKEN" in name]


@pytest.mark.ray
def test_ray_accepts_the_runtime_environment():
    from ray.runtime_env import RuntimeEnv

    environment = yaml.safe_load((CLUSTER / "runtime_env.yaml").read_text(encoding="utf-8"))
    assert RuntimeEnv(**environment)["env_vars"] == environment["env_vars"]


@pytest.mark.ray
def test_ray_accepts_the_cluster_config():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "gpu.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(config))
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert any("--autoscaling-config" in command for command in config["head_start_ray_commands"])


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # ray.serve.schema on import
def test_serve_accepts_the_service_config():
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(of_kind("RayService")["spec"]["serveConfigV2"])
    assert [app.route_prefix for app in ServeDeploySchema.model_validate(config).applications] == ["/"]
