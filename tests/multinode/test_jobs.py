"""Erasure requests from Ray jobs: the coordinator carries them out, even if the job is lost."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

import cluster
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.nodes import Nodes
from tests.multinode.patience import until
from tests.ray.commands import ROOT

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


def test_a_job_that_dies(
    home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A job submits a request from a working folder with a package ``deploy`` of its own, and is stopped in the
    middle of the erasure, which is still carried out; the same job again finds its request done.
    """
    home.specify(**gate.settings, store=str(home.store))
    launch_coordinator(read_specification(home.config))
    names = tmp_path_factory.mktemp("names") / "names.txt"
    names.write_text(f"{ERASED}\n", encoding="utf-8")
    folder = tmp_path_factory.mktemp("working")
    (folder / "sisa.toml").write_bytes(home.config.read_bytes())
    (folder / "deploy").mkdir()
    (folder / "deploy" / "__init__.py").touch()
    with cluster.connect(home.config) as federation:
        with gate.during(lambda: submit(nodes, folder, names, "&& exec sleep 600")) as job:
            jobs, job_id = job.answer.result()
            jobs.stop_job(job_id)
            until(lambda: jobs.get_job_status(job_id) is JobStatus.STOPPED, "the job to be stopped")
            assert [each.state for each in federation.status().requests] == ["quarantined"]
            gate.open()
        until(lambda: [each.state for each in federation.status().requests] == ["complete"], "the erasure to be done")
        assert digests_of(federation.status()) == expected.erased
        again, again_id = submit(nodes, folder, names)
        until(lambda: again.get_job_status(again_id).is_terminal(), "the job to end")
        assert again.get_job_status(again_id) is JobStatus.SUCCEEDED
        assert '"state": "complete"' in again.get_job_logs(again_id)
        assert ERASED not in jobs.get_job_logs(job_id)
        assert federation.verify().holds


def submit(nodes: Nodes, folder: Path, names: Path, then: str = "") -> tuple[Any, str]:
    """Submit the job that asks for the points in ``names`` to be erased; return whom to ask about it, and its id."""
    words = (sys.executable, "-m", "sisa_jobs", "--file", str(names), "--file-of", "ids")
    jobs = JobSubmissionClient(nodes.jobs)

    def submitted() -> str:
        try:
            job_id: str = jobs.submit_job(
                entrypoint=f"{shlex.join([*words, '--request-id', 'er-1'])} {then}",
                runtime_env={"working_dir": str(folder), "env_vars": {"PYTHONPATH": str(ROOT)}},
            )
        except RuntimeError as error:
            if "No available agent" in str(error):
                return ""  # none has come up yet: nothing was submitted
            raise
        return job_id

    return jobs, until(submitted, "an agent that takes jobs")
