"""Whether nodes see the files that the writer does, without Ray: their answers are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.runtime import nodes
from cluster.runtime.nodes import check_nodes, processors, sizes_seen
from shards.data.sources import open_source
from storage.errors import Invalid
from storage.objects import object_key
from storage.stores.local import LocalStore
from tests.shards.people import people, write

NODES = [
    {"NodeID": "here", "Alive": True, "Resources": {"CPU": 2.0}, "NodeManagerAddress": "10.0.0.1"},
    {"NodeID": "there", "Alive": True, "Resources": {"CPU": 1.5}, "NodeManagerAddress": "10.0.0.2"},
    {"NodeID": "head", "Alive": True, "Resources": {}, "NodeManagerAddress": "10.0.0.3"},
    {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0}, "NodeManagerAddress": "10.0.0.4"},
]


class _Context:
    """What this process knows of itself."""

    def get_node_id(self) -> str:
        """Return the node's id."""
        return "here"


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes nodes answer, by their address, in place of what they see."""

    def answering(alive: list[dict[str, Any]] | None = None, **answers: Any) -> None:
        def ask(node: dict[str, Any], paths: list[Path], store: LocalStore, probe: Any) -> Any:
            return answers.get(node["NodeID"], sizes_seen(paths, store, probe))

        monkeypatch.setattr(ray, "nodes", lambda: NODES if alive is None else alive)
        monkeypatch.setattr(ray, "get_runtime_context", _Context)
        monkeypatch.setattr(nodes, "_ask", ask)
        monkeypatch.setattr(nodes, "_answered", lambda answer: answer)

    return answering


def _check(folder: Path) -> None:
    write(people(9), folder / "parts" / "a.parquet")
    write(people(9), folder / "parts" / "b.parquet")
    store = LocalStore(str(folder / "store"))
    try:
        check_nodes(open_source("parts", folder), store, lambda: "name")
    finally:
        assert list(store.list("")) == []


def test_nodes_that_see_everything(tmp_path: Path, look: Callable[..., None]) -> None:
    """If all nodes with a processor see the files and the store, there is no error, and the store stays unchanged."""
    look()
    _check(tmp_path)
    assert processors() == 3


def test_a_cluster_of_this_node_alone_is_not_asked(tmp_path: Path, look: Callable[..., None]) -> None:
    """One node sees what it sees."""
    look(NODES[:1], here=None)
    _check(tmp_path)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            [None, None],
            r"does not see 2 of the data's files as this one does \[node=10\.0\.0\.2 file=parts/a\.parquet\]",
        ),
        ([None, 7], r"does not see 2 of the data's files"),
        (None, r"does not see the store's folder \[node=10\.0\.0\.2\]\. Put data and store on S3"),
    ],
)
def test_a_node_that_sees_other_files(tmp_path: Path, look: Callable[..., None], answer: Any, expected: str) -> None:
    """Files that are missing on a node or of another size there, and a store of its own, are refused with a remedy."""
    look(there=answer)
    with pytest.raises(Invalid, match=expected):
        _check(tmp_path)


def test_a_cluster_without_processors(tmp_path: Path, look: Callable[..., None]) -> None:
    """If no node could ever read the data, the error comes at once."""
    look(NODES[2:])
    with pytest.raises(
        Invalid, match=r"no node of the cluster has a processor .*\. Set \[cluster\] ingest_workers = 1"
    ):
        _check(tmp_path)


def test_what_a_node_sees(tmp_path: Path) -> None:
    """Sizes of the files that are there; nothing at all without the store's own object."""
    path = write(people(9), tmp_path / "a.parquet")
    store, probe = LocalStore(str(tmp_path / "store")), object_key("requests/name.probe")
    assert sizes_seen([path, tmp_path / "b.parquet"], store, None) == [path.stat().st_size, None]
    assert sizes_seen([path], store, probe) is None
    store.put_if_absent(probe, b"")
    assert sizes_seen([path], store, probe) == [path.stat().st_size]
