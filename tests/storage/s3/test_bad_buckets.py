"""A bucket that is away, forbidden, elsewhere or another program's, through the command.

Each ends in the kind that says what to do, with a remedy and the exit code of that kind. Elsewhere: every refusal by
its code in ``test_s3_pure.py``, every fault at every request in ``test_s3_faults.py``, object lock and servers without
conditions in ``tests/deploy/commands/test_on_s3.py`` and ``test_probe.py``, unfinished uploads and foreign names in
``test_s3.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cluster.doctor
import cluster.writer.writer
import storage.s3.client
from storage.objects import object_key
from storage.s3.client import S3Store
from storage.s3.lease import LeaseRecord
from tests.doubles.stores.fault_proxy import Chaos, FaultProxy, fault_proxy
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.stores.website import Website, WebsiteAnswer, running_website
from tests.doubles.stores.weed_shell import weed_shell
from tests.doubles.user_folder import MARKED, CommandResult, UserFolder
from tests.storage.bad_homes import without_ray

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("no_waiting", "aws_environment")]

READERS = {
    "status": ("status",),
    "evaluate": ("evaluate", "train.parquet"),
    "receipt": ("receipt", "er-1"),
    "log": ("log", "--check"),
}
WRITERS = {"train": ("train",), "erase": ("erase", "--subject", MARKED), "verify": ("verify",)}
COMMANDS = READERS | WRITERS
SMALL = {"partition__shards": 2, "partition__slices": 1, "training__epochs": 1}
"""Changes that make a federation of few objects: a server in memory takes its time."""

ALL_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserFolder]:
    """A folder with data and a specification, and nothing trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    monkeypatch.setattr(cluster.writer.writer, "probe_store", lambda _: None)  # takes seconds, and is tested elsewhere
    with without_ray():
        yield UserFolder(tmp_path).fill(None, **SMALL)


def specify(home: UserFolder, **changes: object) -> None:
    """Change where the store is."""
    home.specify(**SMALL, **changes)


def expect(said: CommandResult, code: int, kind: str, text: str) -> None:
    """Check how a command ended."""
    assert (said.code, said.error["kind"]) == (code, kind), said.out
    assert text in said.error["message"]
    assert said.error["remedy"]


def expect_doctor(home: UserFolder, text: str) -> None:
    """Check that the doctor goes through all its checks and finds the store at fault."""
    said = home.json("doctor")
    assert said.code == 1
    (found,) = (each for each in said.data["checks"] if each["check"] == "store")
    assert not found["ok"]
    assert text in found["message"]
    assert found["remedy"]
    assert any(each["ok"] for each in said.data["checks"])


# --------------------------------------------------------------------------------------------------- no such server


@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_out_of_reach_is_reported(home: UserFolder, command: str) -> None:
    """If no server listens, every command says so at once and may be repeated."""
    specify(home, store="s3://bucket/prefix", endpoint="http://127.0.0.1:1")
    expect(home.json(*COMMANDS[command]), 5, "unavailable", "the store's server cannot be reached")


def test_the_doctor_tells_of_a_server_out_of_reach(home: UserFolder) -> None:
    """The doctor still checks everything else."""
    specify(home, store="s3://bucket/prefix", endpoint="http://127.0.0.1:1")
    expect_doctor(home, "the store's server cannot be reached")


@pytest.fixture(scope="module")
def website() -> Iterator[Website]:
    """A server that knows nothing of S3."""
    with running_website() as site:
        yield site


PAGE = b"<html><body>Welcome</body></html>"
ELSEWHERE = {"Location": "https://127.0.0.1:1/"}
SITES: dict[str, tuple[WebsiteAnswer, int, str, str]] = {
    "a page for everything": (WebsiteAnswer(200, PAGE), 5, "unavailable", "does not say what it holds"),
    "no such page": (WebsiteAnswer(404, PAGE), 2, "invalid", "refuses the request"),
    "bad request": (WebsiteAnswer(400, b'{"error":"bad"}'), 2, "invalid", "refuses the request"),
    "log in first": (WebsiteAnswer(401, PAGE), 5, "unavailable", "does not allow this account"),
    "forbidden": (WebsiteAnswer(403, PAGE), 5, "unavailable", "does not allow this account"),
    "another method": (WebsiteAnswer(405), 5, "unavailable", "does not know a request that is needed"),
    "not implemented": (WebsiteAnswer(501), 5, "unavailable", "does not know a request that is needed"),
    "full": (WebsiteAnswer(507), 5, "unavailable", "the store has no room"),
    "broken": (WebsiteAnswer(500, b"oops"), 5, "unavailable", "overloaded or failing"),
    "gateway": (WebsiteAnswer(502, PAGE), 5, "unavailable", "overloaded or failing"),
    "moved": (WebsiteAnswer(301, b"", ELSEWHERE), 2, "invalid", "sends requests elsewhere"),
    "found": (WebsiteAnswer(302, b"", ELSEWHERE), 2, "invalid", "sends requests elsewhere"),
    "temporarily moved": (WebsiteAnswer(307, b"", ELSEWHERE), 2, "invalid", "sends requests elsewhere"),
    "permanently moved": (WebsiteAnswer(308, b"", ELSEWHERE), 2, "invalid", "sends requests elsewhere"),
    "no HTTP": (WebsiteAnswer(0, b"SSH-2.0-OpenSSH_9.6\r\n"), 5, "unavailable", "cannot be reached"),
}


@pytest.mark.parametrize("case", SITES)
def test_a_server_of_something_else_is_reported(home: UserFolder, website: Website, case: str) -> None:
    """An endpoint that is a website, a console, a gateway or no HTTP at all is never taken for an empty store."""
    website.answer, code, kind, text = SITES[case]
    specify(home, store="s3://bucket/prefix", endpoint=website.address)
    for command in ("status", "train"):
        expect(home.json(command), code, kind, text)


@pytest.mark.parametrize("case", ["moved", "a page for everything"])
def test_the_remedy_names_the_endpoint(home: UserFolder, website: Website, case: str) -> None:
    """A redirect to https, or a web page as the answer, leads to an error that names the wrong setting."""
    website.answer = SITES[case][0]
    specify(home, store="s3://bucket/prefix", endpoint=website.address)
    assert "'endpoint'" in home.json("status").error["remedy"]


# --------------------------------------------------------------------------------------- no such bucket, no such clock


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_bucket_is_reported(home: UserFolder, moto_endpoint: str, command: str) -> None:
    """No command takes a bucket that does not exist for an empty store, or makes it."""
    specify(home, store="s3://no-such-bucket/prefix", endpoint=moto_endpoint)
    expect(home.json(*COMMANDS[command]), 2, "invalid", "the bucket does not exist")


def test_the_doctor_tells_of_a_missing_bucket(home: UserFolder, moto_endpoint: str) -> None:
    """The doctor names it as well."""
    specify(home, store="s3://no-such-bucket/prefix", endpoint=moto_endpoint)
    expect_doctor(home, "the bucket does not exist")


@pytest.fixture(scope="module")
def proxy(moto_endpoint: str) -> Iterator[FaultProxy]:
    """A proxy in front of a server."""
    with fault_proxy(moto_endpoint) as running:
        yield running


def too_skewed(*methods: str) -> Chaos:
    """Let all requests with these methods be refused for the clock."""
    return Chaos(random=Random(0), share=1.0, methods=methods, actions=("clock_skew",))  # noqa: S311  all are


@pytest.mark.parametrize("command", COMMANDS)
def test_clocks_apart_are_reported(home: UserFolder, proxy: FaultProxy, command: str) -> None:
    """If the store refuses requests for their time, the error names the clock, and no command retries for ever."""
    specify(home, store=f"s3://plain/clock/{secrets.token_hex(8)}", endpoint=proxy.endpoint)
    proxy.chaos = too_skewed(*ALL_METHODS)
    expect(home.json(*COMMANDS[command]), 5, "unavailable", "clock and the store's differ")


def test_a_clock_that_goes_wrong_while_writing(home: UserFolder, proxy: FaultProxy, moto_endpoint: str) -> None:
    """While only reading works, readers are served and writers refused; afterwards everything works again."""
    place = f"s3://plain/clock/{secrets.token_hex(8)}"
    specify(home, store=place, endpoint=moto_endpoint)
    before = home.json("train")
    specify(home, store=place, endpoint=proxy.endpoint)
    proxy.chaos = too_skewed("PUT", "POST", "DELETE")
    assert home.json("status").digests == before.digests
    assert home.json("evaluate", "train.parquet").code == 0
    for words in WRITERS.values():
        expect(home.json(*words), 5, "unavailable", "clock and the store's differ")
    specify(home, store=place, endpoint=moto_endpoint)
    assert home.json(*WRITERS["erase"]).data["state"] == "complete"


def test_the_doctor_tells_of_a_clock_before_it_is_too_late(
    home: UserFolder, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is off, but not enough for the store to refuse, is reported with the seconds."""

    class LateClock:
        def now(self) -> datetime:
            return datetime.now(UTC) - timedelta(seconds=300)

    specify(home, store=f"s3://plain/clock/{secrets.token_hex(8)}", endpoint=moto_endpoint)
    monkeypatch.setattr(cluster.doctor, "SystemClock", LateClock)
    expect_doctor(home, "seconds behind the store's")


# ------------------------------------------------------------------------------------------------------ credentials


@pytest.fixture(scope="module")
def _accounts(seaweedfs_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Accounts of a real server that may not do everything."""
    (folder,) = (path for path in tmp_path_factory.getbasetemp().glob("seaweedfs*") if not path.is_symlink())
    weed_shell(
        folder,
        *(
            f"s3.configure -user={name} -actions={actions} -access_key={name} -secret_key={name}secret -apply"
            for name, actions in {
                "reads": "Read,List",
                "lists": "List",
                "writes": "Write",
                "elsewhere": "Admin:other",
            }.items()
        ),
    )


Become = Callable[..., None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Let the commands that follow use another account, or none."""

    def change(**settings: str | None) -> None:
        for name, value in settings.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        storage.s3.client._CLIENTS.clear()

    yield change
    monkeypatch.undo()
    storage.s3.client._CLIENTS.clear()


def account(name: str, secret: str = "") -> dict[str, str]:
    """Return boto3's settings of an account."""
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret or f"{name}secret"}


@pytest.mark.usefixtures("_accounts")
def test_an_account_that_only_reads(home: UserFolder, seaweedfs_endpoint: str, become: Become) -> None:
    """With a bucket that allows reads only, readers work, writers get an error that names the missing right, and
    nothing changes.
    """
    specify(home, store=f"s3://plain/accounts/{secrets.token_hex(8)}", endpoint=seaweedfs_endpoint)
    before = home.json("train")
    become(**account("reads"))
    assert home.json("status").digests == before.digests
    assert home.json("evaluate", "train.parquet").code == 0
    for words in WRITERS.values():
        said = home.json(*words)
        expect(said, 5, "unavailable", "the store does not allow this account")
        assert "read, write, list and delete" in said.error["remedy"]
    assert home.json("status").digests == before.digests


@pytest.mark.usefixtures("_accounts")
def test_the_doctor_tells_of_an_account_that_only_reads(
    home: UserFolder, seaweedfs_endpoint: str, become: Become
) -> None:
    """The doctor tries to write, and says that it may not."""
    specify(home, store="s3://plain/accounts", endpoint=seaweedfs_endpoint)
    become(**account("reads"))
    expect_doctor(home, "the store does not allow this account")


@pytest.mark.usefixtures("_accounts")
@pytest.mark.parametrize("name", ["lists", "writes", "elsewhere"])
def test_an_account_that_may_not_read(home: UserFolder, seaweedfs_endpoint: str, become: Become, name: str) -> None:
    """An unreadable bucket is not treated as empty."""
    specify(home, store="s3://plain/accounts", endpoint=seaweedfs_endpoint)
    become(**account(name))
    for command in ("status", "train"):
        expect(home.json(command), 5, "unavailable", "the store does not allow this account")


@pytest.mark.usefixtures("_accounts")
@pytest.mark.parametrize("settings", [account("nobody"), account("reads", "wrong")], ids=["unknown", "wrong secret"])
def test_wrong_credentials_are_reported(
    home: UserFolder, seaweedfs_endpoint: str, become: Become, settings: dict[str, str]
) -> None:
    """Credentials that the server does not know are bad input, and are not shown."""
    specify(home, store="s3://plain/accounts", endpoint=seaweedfs_endpoint)
    become(**settings)
    for words in COMMANDS.values():
        said = home.json(*words)
        expect(said, 2, "invalid", "the store does not accept these credentials")
        assert settings["AWS_SECRET_ACCESS_KEY"] not in said.out


@pytest.mark.parametrize(
    "settings",
    [
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        {"AWS_SECRET_ACCESS_KEY": None},
        {"AWS_PROFILE": "no-such-profile"},
    ],
    ids=["none", "half of them", "a profile that is not there"],
)
def test_missing_credentials_are_reported(
    home: UserFolder, moto_endpoint: str, become: Become, settings: dict[str, str | None]
) -> None:
    """On a machine without usable credentials the error names the places where they are looked for."""
    specify(home, store="s3://plain/accounts", endpoint=moto_endpoint)
    become(**settings)
    for words in COMMANDS.values():
        said = home.json(*words)
        expect(said, 2, "invalid", "this machine has no usable credentials")
        assert "AWS_PROFILE" in said.error["remedy"]


# ---------------------------------------------------------------------------------------------- others in the bucket


def test_a_lease_that_is_held_is_reported(home: UserFolder, moto_endpoint: str) -> None:
    """While another machine holds the lease, writers are refused with its name and readers work; later all work."""
    store = S3Store("plain", f"lease/{secrets.token_hex(8)}", moto_endpoint)
    specify(home, store=store.location, endpoint=moto_endpoint)
    assert home.json("train").code == 0
    record = LeaseRecord(holder="'sisa erase' (process 7)", nonce="other", lease_seconds=3_600)
    store.put(store.full_names.lease("writer"), object_key("lease"), record.to_bytes(), _tag(store))
    said = home.json("train")
    expect(said, 4, "conflict", "'sisa erase' (process 7)")
    assert "3600 seconds after it died" in said.error["remedy"]
    assert home.json("status").code == 0
    ended = LeaseRecord(holder="'sisa erase' (process 7)", nonce="other", lease_seconds=0)
    store.put(store.full_names.lease("writer"), object_key("lease"), ended.to_bytes(), _tag(store))
    assert home.json("train").code in {0, 4}  # 4 at its first look, unless two seconds have passed since it was put
    assert home.json("train").code == 0


def _tag(store: S3Store) -> Any:
    found = store.requests.read(store.full_names.lease("writer"))
    assert found is not None
    return found.tag


@pytest.mark.parametrize(
    ("right", "code", "kind", "text"),
    [
        (b"mine", 1, "corrupt", "was not written by this system"),
        (None, 1, "corrupt", "not what was written"),
    ],
    ids=["another program's", "half of one"],
)
def test_a_lease_that_is_none_is_reported(
    home: UserFolder, moto_endpoint: str, right: bytes | None, code: int, kind: str, text: str
) -> None:
    """An object under the lease's key that is not a lease stops writers with an error that names it, and is kept."""
    store = S3Store("plain", f"lease/{secrets.token_hex(8)}", moto_endpoint)
    specify(home, store=store.location, endpoint=moto_endpoint)
    name = store.full_names.lease("writer")
    if right is None:
        whole = LeaseRecord(holder="x", nonce="y", lease_seconds=1).to_bytes()
        store.put(name, object_key("lease"), whole[: len(whole) // 2], None)
    else:
        client = plain_client(moto_endpoint)
        client.put_object(Bucket="plain", Key=name, Body=right)
        client.close()
    said = home.json("train")
    expect(said, code, kind, text)
    assert "writer" in said.error["message"]


def test_an_object_of_another_program_is_not_used(home: UserFolder, moto_endpoint: str) -> None:
    """A checkpoint that another program has overwritten is refused by name, and ``sisa train`` rebuilds it."""
    store = S3Store("plain", f"foreign/{secrets.token_hex(8)}", moto_endpoint)
    specify(home, store=store.location, endpoint=moto_endpoint)
    before = home.json("train")
    key = min(info.key for info in store.list("shards/0001/checkpoints/0001/"))
    client = plain_client(moto_endpoint)
    client.put_object(Bucket="plain", Key=store.full_names.name(key), Body=b"mine")
    client.put_object(Bucket="plain", Key=f"{store.prefix}/Notes of mine.txt", Body=b"mine")
    client.create_multipart_upload(Bucket="plain", Key=store.full_names.name(object_key("shards/half")))
    client.close()
    said = home.json("evaluate", "train.parquet")
    expect(said, 1, "corrupt", "was not written by this system")
    assert key in said.error["message"]
    found = home.json("verify").data["residue"]["found"]
    assert all(any(part in each for each in found) for part in (key, "Notes of mine.txt", "shards/half"))
    assert home.json("train").digests == before.digests
    assert [each for each in home.json("verify").data["residue"]["found"] if "Notes" not in each] == []
