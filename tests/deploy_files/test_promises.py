"""The operations page says what happens: its promises have tests, its quotations are what the product says.

A sentence that is changed has to be changed here as well, by somebody who looks at its test; a test that is renamed or
removed is missed. What others have to keep (Ray, KubeRay, Kubernetes, AWS) is not in the table.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from cluster.runtime.task_pool import MOST_DEATHS as MOST_DEATHS_OF_TASKS
from cluster.training.deaths import MOST_DEATHS, MOST_MISMATCHES
from cluster.training.pool import MOST_ROUNDS
from coordinator.engine import ledger
from deploy.commands import serve
from storage.stores.local import SWAP_PATIENCE_SECONDS
from tests.documents import ROOT, text_of

PAGE: Final = text_of("docs/operations.md")
_ELSEWHERE: Final = ("Lost head node",)
"""Sections whose promises other tests name."""

PROMISES: Final = {
    # ---------------------------------------------------------------------------------------------- the beginning
    "what was acknowledged is carried out by the next command or coordinator that writes": (
        "kills/test_kills.py::test_a_kill_changes_nothing",
        "ray/test_killed_commands.py::test_a_killed_erasure_is_carried_out",
        "ray/test_launching.py::test_a_killed_coordinator_goes_on",
    ),
    "confirmed against the store at every answer": (
        "serving/test_under_load.py::test_nothing_is_answered_from_memory_alone",
    ),
    "6 a receipt checked without a trusted key": (
        "deploy/commands/test_cli_receipts.py::test_without_a_trusted_key_nobody_vouches",
    ),
    "143 ended by SIGTERM": ("ray/test_killed_commands.py::test_sigterm_with_ray_up_leaves_no_core",),
    "No command writes a core dump": (
        "ray/test_killed_commands.py::test_sigterm_with_ray_up_leaves_no_core",
        "residue/test_ray_session.py::test_workers_leave_no_core_dump",
    ),
    # ------------------------------------------------------------------------------------------------------ start
    "races the store before anything is trusted to it": (
        "contract/test_object_store.py::test_the_probe_passes",
        "deploy/commands/test_on_s3.py::test_a_bucket_that_keeps_objects_is_named",
    ),
    "starts a Ray of its own on this machine, with token authentication, and `sisa stop` ends it": (
        "ray/test_upgrades.py::test_launch_starts_a_ray_and_stop_ends_it",
    ),
    "answers `POST /v1/erasures` with 503": ("serving/test_api.py::test_nothing_is_accepted_without_a_coordinator",),
    "The account `sisa-server` needs `s3:ListBucket` and `s3:GetObject` on store and keys, and nothing else": (
        "serving/test_standing.py::test_a_replica_only_reads",
    ),
    # ------------------------------------------------------------------------------------------------------- jobs
    "removes its arguments from its command line before it joins Ray": (
        "deploy/commands/test_own_words.py::test_the_installed_command_does_it",
        "residue/test_ray_metadata.py::test_nobody_is_in",
    ),
    'After "accepted" the coordinator carries the request out, even if the job dies': (
        "multinode/test_jobs.py::test_a_job_that_dies",
        "deploy_files/test_erase_job.py::test_a_job_that_is_run_again_submits_nothing_new",
    ),
    # ------------------------------------------------------------------------------------------------ lost worker
    "Another worker continues after the last slice that was learned": (
        "ray/test_federation.py::test_workers_that_die_are_replaced",
        "multinode/test_lost_nodes.py::test_nodes_lost_in_training_and_in_retraining",
    ),
    "three deaths in a row on one slice end the attempt": (
        "ray/test_federation.py::test_a_worker_that_dies_again_and_again",
        "cluster/training/test_pool.py::test_a_slice_learned_begins_a_new_count",
    ),
    "If no node can hold a worker, the commands say which size is needed": (
        "ray/test_federation.py::test_a_worker_too_large_for_every_node",
        "cluster/training/test_pool.py::test_nodes_that_are_gone_may_come_back",
    ),
    # ------------------------------------------------------------------------------------ machines of several kinds
    "Later workers are not placed on that node": (
        "cluster/training/test_selection.py::test_nodes_found_wanting_are_not_asked_again",
    ),
    "After ten in a row the command ends": (
        "cluster/training/test_selection.py::test_where_no_other_successor_comes_it_is_said_why",
    ),
    "Points of the request are removed and withdrawn already; only the retraining waits": (
        "ray/test_other_bits.py::test_an_erasure_that_would_compute_other_bits_is_refused",
        "multinode/test_other_kinds.py::test_the_work_goes_on_with_those_that_compute_as_before",
    ),
    "the largest group of equal workers is used": (
        "cluster/training/test_selection.py::test_before_the_first_training_the_largest_group_is_used",
    ),
    "up to five times, twice as many each time; nodes that are busy are not waited for then": (
        "cluster/training/test_selection.py::test_the_search_has_an_end",
        "cluster/training/test_selection.py::test_busy_nodes_are_not_waited_for",
    ),
    "one command uses one group of them": (
        "cluster/training/test_selection.py::test_what_an_old_store_does_not_record_cannot_be_compared_with_it",
    ),
    # ---------------------------------------------------------------------------------------- lost machines or store
    "shards whose workers are unreachable wait, and requests stay quarantined": (
        "multinode/test_lost_nodes.py::test_all_nodes_lost",
    ),
    "Predictions are answered with 503, because they cannot be confirmed, and requests are not accepted": (
        "serving/test_on_ray_serve.py::test_replicas_are_silent_while_the_store_is_away",
    ),
    "Predictions and the coordinator continue by themselves when the store is back": (
        "serving/test_on_ray_serve.py::test_replicas_are_silent_while_the_store_is_away",
        "cluster/coordinator_actor/test_resident_retries.py::test_what_passes_by_itself_needs_nobody",
    ),
    "it rewrites the data in doubt and does nothing twice": (
        "storage/test_accepted_lasts.py::test_what_is_answered_lasts",
    ),
    "The message names the process: continue it (`kill -CONT`) or end it": (
        "storage/stores/test_local_processes.py::test_a_stopped_holder_of_the_stores_lock_is_reported",
    ),
    "processes read it again at their next request": (
        "storage/s3/test_profiles.py::test_renewed_credentials_are_used",
    ),
    # ----------------------------------------------------------------------------------------------- several sites
    "all of this page applies there, with `--site NAME` in front": (
        "sites/near/test_cli_sites.py::test_one_site_is_a_federation_of_its_own",
    ),
    "go on without it as long as `[sites] quorum` sites answer; else exit code 5, over HTTP 503": (
        "sites/near/test_asking.py::test_a_slow_site_is_left_out_once_the_quorum_has_answered",
        "sites/near/test_simulated_sites.py::test_too_few_sites_answer_nothing",
    ),
    "`sisa train` takes them up when it is back, other sites go on meanwhile": (
        "sites/near/test_simulated_sites.py::test_a_site_that_is_away_is_waited_for",
    ),
    "through the federation none is accepted": (
        "sites/near/test_simulated_sites.py::test_an_erasure_at_a_site_that_is_away_is_not_accepted",
    ),
    "The site takes part in no answer, and the federation accepts no erasure for it": (
        "sites/near/test_simulated_sites.py::test_a_site_restored_from_an_old_backup_has_no_part",
    ),
    "From then on the site takes part in no answer": (
        "sites/near/test_simulated_sites.py::test_withdrawing_a_site",
        "sites/near/test_asking.py::test_a_site_that_leaves_while_it_is_asked",
    ),
    "A file that others may read is not used": (
        "sites/near/test_remote_access.py::test_a_token_that_others_can_read_is_not_used",
    ),
    # ---------------------------------------------------------------------------------------- alerts, open requests
    "No replica has been able to confirm an answer against the store for two minutes": (
        "deploy_files/test_alerts.py::test_alerts_fire_for_what_they_are_there_for",
    ),
    "`sisa request list` lists all requests ever accepted": (
        "deploy/test_ended_requests.py::test_the_status_lists_the_last_ones_and_counts_the_others",
    ),
    "once, before it is overdue": (
        "deploy/commands/test_cli_requests.py::test_a_due_date_is_extended_once",
        "deploy/test_clock.py::test_more_time_is_not_had_by_setting_the_clock",
    ),
    "says which one: wait for it, or stop it": (
        "deploy/commands/test_cli_contract.py::test_a_second_writer_is_reported_who_holds_the_store",
    ),
    "on S3 the right is free again some seconds after its holder's death": (
        "storage/s3/test_client.py::test_a_dead_holders_lease_is_taken_over",
    ),
    "The message says if the holder is stopped (SIGSTOP)": (
        "storage/stores/test_local_processes.py::test_a_stopped_writer_is_reported",
    ),
    "Meanwhile recorded times continue from the newest one": (
        "deploy/test_clock.py::test_receipts_do_not_run_backwards",
        "cluster/runtime/test_system.py::test_no_time_falls_behind_the_record",
    ),
    # --------------------------------------------------------------------------------------------- keys and tokens
    "What they signed stays verifiable": (
        "deploy/commands/receipts/test_cli_keys.py::test_what_was_signed_before_a_rotation_still_verifies",
    ),
    "Each old key signs the new one before it is destroyed": (
        "deploy/commands/receipts/test_check.py::test_new_keys_are_signed_by_old_ones",
    ),
    "`sisa token list` shows all, without their secrets": ("serving/test_commands.py::test_a_token_is_shown_once",),
    "`SisaTokenExpires` names the role of a token that expires within a week": (
        "deploy_files/test_alerts.py::test_alerts_fire_for_what_they_are_there_for",
        "cluster/coordinator_actor/test_metrics.py::test_the_next_token_to_expire_is_reported_by_role",
    ),
    "A token of the role erase sees only requests that were submitted with it": (
        "serving/access/test_roles.py::test_the_table_is_true",
        "serving/access/test_roles.py::test_its_own_receipt",
    ),
    "One that `sisa.toml` gives is kept in the store": ("residue/test_ray_metadata.py::test_nobody_is_in",),
    # ------------------------------------------------------------------------------------------- suspicion, capacity
    "or `ray_sisa_constituents_tainted` is above 0": (
        "cluster/coordinator_actor/test_metrics.py::test_a_tainted_constituent_is_seen",
    ),
    "The same request id with the same names is not done again": (
        "deploy/test_ended_requests.py::test_an_id_is_used_for_ever",
    ),
    "the number of requests of each kind that a replica takes at once is limited": (
        "serving/bodies/test_intake.py::test_a_class_has_its_own_room",
    ),
    "The journal is shortened by itself, after 256 entries and with every purge": (
        "coordinator/engine/test_ledger.py::test_the_journal_is_cut_and_nothing_changes",
        "deploy/test_guards.py::test_manifest_and_journal_stay_short_while_training",
    ),
    "`sisa verify` names the objects that do not belong in it": (
        "deploy/commands/test_cli_damage.py::test_orphans_and_foreign_files_are_found",
    ),
    # ----------------------------------------------------------------------------------------------- what is to see
    "`ray_sisa_*` at port 8080 of every node": (
        "serving/test_on_ray_serve.py::test_monitoring_scrapes_what_alerts_ask_for",
    ),
    "one that reports does not hide another one that is gone": (
        "deploy_files/test_alerts.py::test_alerts_fire_for_what_they_are_there_for",
    ),
    "The size of the store is counted once an hour": (
        "cluster/coordinator_actor/test_store_size.py::test_it_is_counted_again_an_hour_later",
    ),
    "Lines name requests, shards and counts, never a person": (
        "cluster/coordinator_actor/test_log_lines.py::test_no_line_names_a_person",
        "cluster/coordinator_actor/test_log_lines.py::test_texts_that_may_quote_data_are_left_out",
    ),
    "`sisa doctor --rows FILE` lists the rows of people who were erased": (
        "deploy/commands/first_minutes/test_doctor.py::test_rows_and_copies_of_the_erased",
    ),
    "Rate limits count in each replica on its own": ("serving/test_gate.py::test_who_asks_too_often_waits",),
}
"""Sentences of the page, or parts of them, and the tests that show what they say."""


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@cache
def _tests_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("sentence", PROMISES, ids=lambda sentence: sentence[:50])
def test_every_promise_has_its_test(sentence: str) -> None:
    """The sentence is on the page, and the tests that it rests on exist."""
    assert sentence in _flat(PAGE)
    for test in PROMISES[sentence]:
        path, _, name = test.partition("::")
        assert name in _tests_in(ROOT / "tests" / path), test


def _messages() -> str:
    """Return all texts in our code, with a mark where something is filled in."""
    found = []
    for room in ("storage", "shards", "coordinator", "cluster", "deploy"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    pieces = (each.value if isinstance(each, ast.Constant) else "\0" for each in node.values)
                    found.append("".join(map(str, pieces)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def _quotations() -> list[str]:
    """Return what the page quotes as said by the product, outside blocks and headings' names."""
    headings = set(re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE))
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    own = "\n".join(each for each in sections if not each.startswith(_ELSEWHERE))
    text = _flat(re.sub(r"^```.*?^```$", "", own, flags=re.MULTILINE | re.DOTALL))
    spans = [each for each in re.findall(r"`([^`]+)`", text) if "…" in each]
    quoted = re.findall(r'"([^"]*)"', re.sub(r"`[^`]+`", "", text))
    return [*spans, *(each for each in quoted if len(each) > 8 and each not in headings)]


def test_what_is_quoted_is_what_is_said() -> None:
    """Each message on the page is one of the product's, up to what is filled in."""
    messages, quotations = _messages(), _quotations()
    assert len(quotations) > 9
    for quotation in quotations:
        pieces = re.split(r"\.\.\.|…|ADDRESS|\bID\b|\bN\b|\b10\b|south|north", quotation)
        for piece in pieces:
            if len(words := piece.strip(" :,;()")) > 5:
                assert words in messages, quotation


def test_numbers_are_those_of_the_code() -> None:
    """Numbers in words and in figures are what the code counts to."""
    assert (MOST_DEATHS, MOST_DEATHS_OF_TASKS, MOST_MISMATCHES, MOST_ROUNDS) == (3, 3, 10, 5)
    assert SWAP_PATIENCE_SECONDS == 10
    assert f"after {ledger._SNAPSHOT_EVERY} entries" in PAGE
    days = inspect.signature(serve.create).parameters["days"].default
    assert f"({days:g} days)" in PAGE
