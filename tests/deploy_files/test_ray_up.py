"""The file for ``ray up``: what Ray's own launcher accepts, with versions fixed and no key in it."""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.deploy_files.manifests import ROOT, load

PATH = ROOT / "deploy" / "ray-up" / "aws.yaml"
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


@pytest.fixture(name="launched")
def _launched() -> dict[str, Any]:
    """The file."""
    (found,) = load(PATH)
    assert isinstance(found, dict)
    return found


def _start(launched: dict[str, Any], commands: str) -> str:
    (found,) = [command for command in launched[commands] if "ray start" in command]
    return str(found)


def test_rays_own_schema_accepts_it(launched: dict[str, Any]) -> None:
    """Ray's launcher refuses unknown fields; it would take this file."""
    found = find_spec("ray.autoscaler")
    assert found is not None
    assert found.origin is not None
    schema = json.loads((Path(found.origin).parent / "ray-schema.json").read_text(encoding="utf-8"))
    import_module("jsonschema").validate(launched, schema)
    assert launched["head_node_type"] in launched["available_node_types"]


def test_versions_are_fixed(launched: dict[str, Any]) -> None:
    """One image, by its version, on all machines; nothing is installed when a machine starts."""
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert launched["docker"]["image"].endswith(f"/sisa-ray:{version.group(1)}-cpu")
    assert not {"head_image", "worker_image"} & launched["docker"].keys()
    assert launched["setup_commands"] == launched["head_setup_commands"] == launched["worker_setup_commands"] == []
    assert "pip install" not in PATH.read_text(encoding="utf-8")


def test_every_machine_asks_for_the_token(launched: dict[str, Any]) -> None:
    """Token authentication is on in every container, and the token is a file that is copied, not a text in here."""
    assert "--env RAY_AUTH_MODE=token" in launched["docker"]["run_options"]
    assert launched["file_mounts"].items() >= {("/home/sisa/.ray/auth_token", "~/.ray/auth_token")}


def test_no_key_is_in_it(launched: dict[str, Any]) -> None:
    """Machines have a role, encrypted disks, and a security group that is not left to Ray, which would open SSH."""
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|AWS_SECRET", PATH.read_text(encoding="utf-8"))
    for node in launched["available_node_types"].values():
        machine = node["node_config"]
        assert machine["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert all(device["Ebs"]["Encrypted"] for device in machine["BlockDeviceMappings"])
        assert machine["SecurityGroupIds"]
    assert launched["provider"]["use_internal_ips"] is True


def test_nothing_personal_is_spilled_to_a_disk(launched: dict[str, Any]) -> None:
    """Ray spills into memory, no process leaves a core dump, and no machine is kept with its disk."""
    (spill,) = [option for option in launched["docker"]["run_options"] if option.startswith("--tmpfs /var/spill")]
    assert "mode=0700" in spill
    assert "--ulimit core=0" in launched["docker"]["run_options"]
    assert all("--object-spilling-directory=/var/spill" in _start(launched, commands) for commands in STARTS)
    assert launched["provider"]["cache_stopped_nodes"] is False


def test_the_head_may_be_lost(launched: dict[str, Any]) -> None:
    """Ray's metadata is outside the container, nothing that trains runs beside it, and workers go on without it."""
    command = _start(launched, "head_start_ray_commands")
    folder = re.search(r"RAY_gcs_storage=rocksdb RAY_gcs_storage_path=(\S+)", command)
    assert folder is not None
    (volume,) = [option for option in launched["docker"]["head_run_options"] if option.startswith("--volume")]
    assert volume.endswith(f":{folder.group(1)}")
    assert launched["available_node_types"][launched["head_node_type"]]["resources"] == {"CPU": 0}
    assert "RAY_gcs_rpc_server_reconnect_timeout_s=86400 ray start" in _start(launched, "worker_start_ray_commands")


@pytest.mark.parametrize("commands", STARTS)
def test_ray_knows_every_option(launched: dict[str, Any], commands: str) -> None:
    """Each option after ``ray start`` is one of this version's."""
    known = {option for parameter in import_module("ray.scripts.scripts").start.params for option in parameter.opts}
    words = _start(launched, commands).partition("ray start")[2].split()
    assert {word.partition("=")[0] for word in words} <= known
