"""``sisa erase`` through the command: what is gone is gone from models, files and names; what is wrong is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import Corrupt
from tests.doubles.user_folder import MARKED, MARKER, Columns, UserFolder, duplicate, ids_of, small_points, without
from tests.volume import examples


def fresh_digests(folder: Path, columns: Columns, **changes: object) -> list[str]:
    """Return the digests of a federation that only ever saw ``columns``."""
    folder.mkdir()
    said = UserFolder(folder).fill(columns, **changes).json("train")
    assert said.code == 0, said.error
    return said.digests


def test_an_erased_person_was_never_there(trained: UserFolder) -> None:
    """After an erasure by subject the constituents are those of a federation without the person; others' stay."""
    before = trained.json("status").digests
    said = trained.json("erase", "--subject", MARKED)
    after = trained.json("status").digests
    assert after == fresh_digests(trained.folder / "fresh", without(small_points(), subjects=[MARKED]))
    assert [number for number in range(3) if before[number] != after[number]] == said.data["shards"]
    assert trained.json("verify").code == 0


def test_erasing_single_data_points(trained: UserFolder) -> None:
    """An erasure by id takes that data point alone; its subject's others stay."""
    gone = ids_of(small_points(), MARKED)[1]
    assert trained.json("erase", "--id", gone).data["points"] == 1
    expected = fresh_digests(trained.folder / "fresh", without(small_points(), ids=[gone]))
    assert trained.json("status").digests == expected


def test_every_way_to_name(trained: UserFolder) -> None:
    """Options, bare words and a file name subjects and ids of one request."""
    people = [f"secret-person-{number:03d}" for number in range(6)]
    single = ids_of(small_points(), "secret-person-009")[0]
    (trained.folder / "names.txt").write_text(f"{people[3]}\r\n{people[4]}\n{people[5]}", encoding="utf-8-sig")
    words = ("--subject", people[0], "--subject", people[1], people[2], "--file", "names.txt", "--id", single)
    mixed = trained.json("erase", *words)
    assert mixed.code == 2
    assert "a bare name may be a person or a data point" in mixed.error["message"]
    said = trained.json("erase", "--subject", people[0], *people[1:3], "--file", "names.txt")
    assert (said.data["points"], said.data["subjects"]) == (24, 6)
    (trained.folder / "ids.txt").write_text(single + "\n", encoding="utf-8")
    assert trained.json("erase", "--file", "ids.txt", "--file-of", "ids").data["points"] == 1
    columns = without(small_points(), subjects=people, ids=[single])
    assert trained.json("status").digests == fresh_digests(trained.folder / "fresh", columns)


def test_the_order_of_erasures_leaves_no_trace(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A then B, B then A, and both at once end in the same bytes (E9)."""
    first, second = MARKED, "secret-person-004"
    ends = []
    for requests in ([[first], [second]], [[second], [first]], [[first, second]]):
        folder = tmp_path_factory.mktemp("history") / "home"
        duplicate(trained.folder, folder)
        for names in requests:
            assert UserFolder(folder).json("erase", "--subject", *names).code == 0
        ends.append(UserFolder(folder).json("status").digests)
    assert ends[0] == ends[1] == ends[2]


def test_nothing_of_an_erased_person_is_left(trained: UserFolder) -> None:
    """No file of the store names the person, no slice file holds a byte of their features, and objects that did are
    gone.
    """
    gone = ids_of(small_points(), MARKED)
    (shard,) = trained.json("erase", "--subject", MARKED, "--dry-run").data["shards"]
    old = set((trained.store / f"shards/{shard:04d}").rglob("*.*"))
    assert _holds_marker(trained)
    assert trained.json("erase", "--subject", MARKED).code == 0
    for text in (MARKED, *gone):
        assert not any(text.encode() in payload for payload in trained.raw().values())
    assert not _holds_marker(trained)
    kept = [path for path in old if path.exists()]
    assert len(kept) < len(old)
    assert not any(MARKED in str(path) or any(each in str(path) for each in gone) for path in trained.store.rglob("*"))


def test_features_and_names_are_encrypted_from_the_first_byte(home: UserFolder) -> None:
    """At no time does any file of the store hold a person's features, name or ids: after training, after an erasure,
    after training on.
    """
    for words in (("train",), ("erase", "--subject", "secret-person-003"), ("train",)):
        assert home.json(*words).code == 0
        assert _holds_marker(home)  # in what the keys open
        for name, payload in home.raw().items():
            assert MARKER not in payload, name
            assert b"secret-" not in payload, name
            assert MARKED.encode() not in payload, name
            assert b"PAR1" not in payload, name


def test_a_copy_of_what_was_erased_does_not_open(trained: UserFolder) -> None:
    """Every file of the store, copied before an erasure and put back after it but for the keys that the erasure
    destroyed, gives no object back that was erased, and every other one.
    """
    before, slices = trained.raw(), set(trained.objects.list("shards/"))
    assert trained.json("erase", "--subject", MARKED).code == 0
    erased = {info.key for info in slices} - {info.key for info in trained.objects.list("shards/")}
    kept = {key: trained.objects.get(key).payload for key in {info.key for info in slices} - erased}
    destroyed = {name for name in before if "/kek-" in name} - trained.raw().keys()
    assert erased
    assert destroyed
    for name in before.keys() - destroyed - trained.raw().keys():
        (trained.store / name).parent.mkdir(parents=True, exist_ok=True)
        (trained.store / name).write_bytes(before[name])
    for key in erased:
        with pytest.raises(Corrupt, match="the key of this object was destroyed"):
            trained.objects.get(key)
    assert {key: trained.objects.get(key).payload for key in kept} == kept
    for name in (name for name in before if name.endswith("/ring")):
        (trained.store / name).write_bytes(before[name])  # the old rings as well
    for key in erased:
        with pytest.raises(Corrupt, match="a key-encryption key is missing"):
            trained.objects.get(key)


def test_keys_may_be_kept_elsewhere(home: UserFolder) -> None:
    """With ``keys`` set, the store alone cannot be decrypted; everything else works as usual."""
    home.specify(keys="./keys")
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    assert home.json("verify").code == 0
    assert not any("/ring" in name or "/kek-" in name for name in home.raw())
    home.specify()
    said = home.json("verify")
    assert (said.code, said.error["kind"]) == (4, "conflict")
    assert "Set 'keys'" in said.error["remedy"]


def test_no_plain_name_is_ever_stored(trained: UserFolder) -> None:
    """Even for people who were not erased, the store holds only keyed digests, within encrypted objects too."""
    tables = [pq.read_table(io.BytesIO(payload)) for payload in trained.slice_files().values()]
    for text in ("secret-", MARKED):
        assert not any(text.encode() in payload for payload in trained.raw().values())
        assert not any(text in str(table.to_pydict()) for table in tables)


def _holds_marker(home: UserFolder) -> bool:
    """Return whether any slice file holds the marked features, regardless of its columns."""
    found = False
    for payload in home.slice_files().values():
        for column in pq.read_table(io.BytesIO(payload)).columns:
            values = column.combine_chunks()
            raw = b"".join(bytes(buffer) for buffer in values.buffers() if buffer is not None)
            found = found or MARKER in raw
        text = np.array(list(MARKER), dtype=np.uint8).tobytes()
        found = found or text in payload
    return found


def test_an_unknown_subject_is_refused(trained: UserFolder) -> None:
    """Nothing to erase: state ``refused``, exit code 2, the request in ``data`` and the reason in ``error``."""
    kept, before = trained.kept(), trained.json("status")
    said = trained.json("erase", "--subject", "nobody", "--request-id", "er-1")
    assert said.code == 2
    assert (said.data["request_id"], said.data["state"], said.data["points"]) == ("er-1", "refused", 0)
    assert said.error["kind"] == "refused"
    assert "nothing to erase" in said.error["message"]
    assert "er-1" in said.error["message"]
    assert "spelling" in said.error["remedy"]
    assert (said.data["subjects"], said.data["unknown"], said.data["unknown_names"]) == (1, 1, ["nobody"])
    stated = ("federation/log/", "federation/receipts/")  # that nothing was found
    assert {name: value for name, value in trained.kept().items() if not name.startswith(stated)} == kept
    after = trained.json("status")
    assert after.digests == before.digests
    assert after.data["generation"] == before.data["generation"]
    assert [each["state"] for each in after.data["requests"]] == ["refused"]


def test_a_price_of_nothing(trained: UserFolder) -> None:
    """A dry run for an unknown subject prices nothing and changes nothing."""
    kept = trained.kept()
    said = trained.json("erase", "--subject", "nobody", "--dry-run")
    assert (said.code, said.data["points"], said.data["shards"]) == (0, 0, [])
    assert trained.kept() == kept
    assert trained.json("status").data["requests"] == []


def test_erasing_twice(trained: UserFolder) -> None:
    """A person who is already erased is unknown."""
    assert trained.json("erase", "--subject", MARKED).code == 0
    digests = trained.json("status").digests
    assert trained.json("erase", "--subject", MARKED).data["state"] == "refused"
    assert trained.json("status").digests == digests


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "no subject and no data point is named"),
        (("nobody",), "a bare name may be a person or a data point"),
        (("--subject", ""), "an empty name cannot be erased"),
        (("--id", ""), "an empty name cannot be erased"),
        (("--file", "none.txt"), "there is no such file of names [file=none.txt]"),
        (("--file", "."), "cannot be read"),
        (("--file", "binary.txt"), "is not UTF-8 text"),
        (("--file", "holes.txt"), "blank lines: 2, 4, 5"),
        (("--file", "empty.txt"), "no names"),
        (("--file", "good.txt", "--file-of", "people"), "--file-of takes subjects or ids"),
    ],
)
def test_a_request_that_names_nobody_is_refused(words: Sequence[str], text: str, trained: UserFolder) -> None:
    """A file with empty lines, an unreadable file, and no name at all are refused, with the line where there is one."""
    (trained.folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (trained.folder / "holes.txt").write_text(f"{MARKED}\n\nsecret-person-001\n  \n\n", encoding="utf-8")
    (trained.folder / "empty.txt").touch()
    (trained.folder / "good.txt").write_text(MARKED, encoding="utf-8")
    said = trained.refused("erase", *words)
    assert text in said.error["message"]
    assert MARKED not in said.out + said.err


def test_bad_lines_are_reported_by_number(trained: UserFolder) -> None:
    """The error lists the line numbers of each kind of bad line. Windows line ends, a last line without an end, and a
    name of the greatest length are accepted.
    """
    lines = [
        MARKED.encode(),
        b"\xff\xfe",
        b"a\tb",
        b" ",
        b"x" * 1001,
        b"x" * 1000,
        b"\xe9t\xe9",
        "a\u2028b".encode(),
        b"z",
    ]
    (trained.folder / "bad.txt").write_bytes(b"\r\n".join(lines))
    said = trained.refused("erase", "--file", "bad.txt")
    assert said.error["message"] == (
        "the file of names has a blank line: 4; lines that are not UTF-8 text: 2, 7;"
        " a line of more than 1,000 characters: 5; lines with control characters: 3, 8 [file=bad.txt]"
    )
    assert "Nothing was erased." in said.error["remedy"]


def test_of_many_bad_lines_the_first_ten_are_reported(trained: UserFolder) -> None:
    """A file of another kind gives ten numbers and a count, however long its lines are; nothing of it is erased."""
    (trained.folder / "bad.txt").write_bytes((b"\x00" * 5000 + b"\n") * 3 + b"\n" * 4000 + MARKED.encode())
    message = trained.refused("erase", "--file", "bad.txt").error["message"]
    assert "has 4,003 bad lines, of which these are the first 10: blank lines: 4, 5, 6, 7, 8, 9, 10" in message
    assert "lines of more than 1,000 characters: 1, 2, 3" in message
    assert trained.json("status").data["requests"] == []


# A process of its own: the peak of this one has been reached by other tests. VmHWM, not ru_maxrss: a child inherits the
# latter from its parent.
_MEASURED = """
from pathlib import Path
from deploy.commands.cli import main
try:
    main()
finally:
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


_NAMES = examples(1_000_000, 250_000)


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("file_of", ["subjects", "ids"])
def test_many_names_are_planned_in_little_memory(file_of: str, trained: UserFolder) -> None:
    """A request of 1,000,000 subjects or ids is priced in less than 1 GiB, of a quarter as many in less than 384
    MiB, and none is left out.
    """
    columns = small_points()
    found = sorted(set(columns["user_id"] if file_of == "subjects" else columns["id"]))[:20]
    with (trained.folder / "names.txt").open("w", encoding="utf-8") as lines:
        lines.writelines(f"stranger-{number:07d}\n" for number in range(_NAMES - len(found)))
        lines.writelines(f"{name}\n" for name in found)
    words = ("erase", "--dry-run", "--file", "names.txt", "--file-of", file_of, "--json")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _MEASURED, *words]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=trained.folder, env=environment)
    assert ended.returncode == 0, ended.stderr
    envelope, peak_kib = ended.stdout.splitlines()
    assert json.loads(envelope)["data"]["points"] == (20 * 4 if file_of == "subjects" else 20)
    assert int(peak_kib) < (1024 if _NAMES == 1_000_000 else 384) << 10


def test_a_request_id_stands_for_one_request(trained: UserFolder) -> None:
    """The same id with the same people is the same request and costs nothing; with others it is a conflict."""
    first = trained.json("erase", "--subject", MARKED, "--subject", "secret-person-001", "--request-id", "er-1")
    kept = trained.kept()
    again = trained.run("erase", "--subject", "secret-person-001", "--subject", MARKED, "--request-id", "er-1")
    assert again.code == 0
    assert "slice" not in again.err
    same = trained.json("erase", "--subject", MARKED, "--subject", "secret-person-001", "--request-id", "er-1")
    assert same.data | {"salt": first.data["salt"]} == first.data, "the salt is shown once"
    assert trained.kept() == kept
    other = trained.refused("erase", "--subject", "secret-person-002", "--request-id", "er-1", code=4)
    assert "used before" in other.error["message"]
    assert "er-1" in other.error["message"]
    assert "--request-id" in other.error["remedy"]


def test_erased_people_stay_out(trained: UserFolder) -> None:
    """Training again on a source that still holds an erased person leaves them out, and says how many points."""
    assert trained.json("erase", "--subject", MARKED).code == 0
    digests = trained.json("status").digests
    (trained.folder / "train.parquet").unlink()
    trained.write("train.csv", small_points())
    trained.specify(data__train="train.csv")
    said = trained.json("train")
    assert said.digests == digests
    assert said.data["tombstoned_at_ingest"] == 4
    assert said.data["points"] == 116
    assert trained.json("verify").code == 0


def test_whoever_comes_back_is_taken_from_a_source_that_has_not_changed(trained: UserFolder) -> None:
    """New data points that were left out before the readmission are taken after it; those that were erased are not."""
    assert trained.json("erase", "--subject", MARKED).code == 0
    columns = small_points()
    for name, values in columns.items():
        values.append({"id": "new-id", "user_id": MARKED}.get(name, values[-1]))
    trained.write("train.parquet", columns)
    assert trained.json("train").data["points"] == 116
    assert trained.json("readmit", "--subject", MARKED, "--reason", "asked").code == 0
    said = trained.json("train")
    assert (said.data["points"], said.data["tombstoned_at_ingest"], said.data["kept_out_by_id"]) == (117, 4, 4)
    kept = trained.kept()
    assert trained.json("train").data["points"] == 117
    assert trained.kept() == kept


def test_status_shows_requests_with_due_dates(trained: UserFolder) -> None:
    """Each request is listed with its state, its shards and when it is due."""
    trained.specify(erasure__deadline_days=10)
    trained.json("erase", "--subject", MARKED, "--request-id", "er-1")
    (request,) = trained.json("status").data["requests"]
    assert request["state"] == "complete"
    assert request["received_at"] < request["due_at"]
    assert not request["overdue"]
    reported = trained.run("status", "er-1").out
    states = ("accepted", "planned", "quarantined", "retraining", "published", "purged", "complete")
    assert request["times"].keys() == set(states)
    assert [line.split()[1] for line in reported.splitlines() if line.startswith("  2")] == list(states)
    times = [request["times"][state] for state in states]
    assert times == sorted(times)
