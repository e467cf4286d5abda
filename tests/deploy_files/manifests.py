"""Loads manifests, combines them as kustomize does, and checks them against closed schemas.

Only the features of kustomize that our overlays use are implemented: resources, namespace, images, ConfigMaps from
files, JSON patches. The schemas list only the fields that our manifests use, each checked against the schemas of
KubeRay and Kubernetes, so a misspelt or invented field is refused. They do not copy the whole CRDs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
_SCHEMAS = Path(__file__).parent / "schemas"

# Both come with Ray, and neither ships types.
yaml: Any = import_module("yaml")
_jsonschema: Any = import_module("jsonschema")
_referencing: Any = import_module("referencing.jsonschema")

Manifest = dict[str, Any]


def load(path: Path) -> list[Any]:
    """Return the documents of a YAML file: manifests, kustomizations, or lists of JSON patches."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]


@cache
def _registry() -> Any:
    schemas = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in _SCHEMAS.glob("*.json")}
    return _referencing.EMPTY_REGISTRY.with_contents(schemas.items(), default_specification=_referencing.DRAFT202012)


def problems(document: object, schema: str) -> list[str]:
    """Return what is wrong with a document under ``schemas/<schema>.json``, each with its place."""
    validator = _jsonschema.Draft202012Validator({"$ref": f"{schema}.json"}, registry=_registry())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def built(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization, as they would be applied."""
    kustomization = load(folder / "kustomization.yaml")[0]
    manifests: list[Manifest] = []
    for name in kustomization.get("resources", []):
        path = folder / name
        manifests += built(path) if path.is_dir() else load(path)
    manifests += [_config_map(folder, each) for each in kustomization.get("configMapGenerator", [])]
    for patch in kustomization.get("patches", []):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
        chosen = [manifest for manifest in manifests if _is_target(manifest, patch["target"])]
        assert chosen, f"a patch of {folder} finds nothing: {patch['target']}"
        for manifest in chosen:
            _patch(manifest, yaml.safe_load(text))
    for manifest in manifests:
        _place(manifest, kustomization)
    return manifests


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """Yield the pod templates of a RayCluster or RayService, the head's first."""
    spec = manifest["spec"].get("rayClusterConfig", manifest["spec"])
    yield spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        yield group["template"]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one manifest of this kind and name."""
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def _config_map(folder: Path, generator: Manifest) -> Manifest:
    data = {name: (folder / name).read_text(encoding="utf-8") for name in generator["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def _is_target(manifest: Manifest, target: dict[str, str]) -> bool:
    group, _, version = manifest["apiVersion"].rpartition("/")
    actual = {"group": group, "version": version, "kind": manifest["kind"], "name": manifest["metadata"]["name"]}
    return all(actual[part] == wanted for part, wanted in target.items())


def _patch(manifest: Manifest, operations: list[dict[str, Any]]) -> None:
    for operation in operations:
        *path, last = operation["path"].strip("/").split("/")
        place: Any = manifest
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place[step]
        value = copy.deepcopy(operation["value"])
        if last == "-":
            place.append(value)
        else:
            assert (last in place) == (operation["op"] == "replace"), operation["path"]
            place[last] = value


def _place(manifest: Manifest, kustomization: Manifest) -> None:
    if "namespace" in kustomization and manifest["kind"] != "Namespace":
        manifest["metadata"]["namespace"] = kustomization["namespace"]
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization.get("images", [])}
    for pod in pods(manifest) if manifest["kind"] in ("RayCluster", "RayService") else ():
        for container in pod["spec"]["containers"]:
            name = container["image"].rpartition(":")[0]
            container["image"] = images.get(name, container["image"])
