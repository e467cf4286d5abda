"""Reading ``sisa.toml``: what is accepted, and that every mistake is named with its line and remedy."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.config.specification import (
    TABLES,
    FederationSpecification,
    describe_difference,
    read_specification,
    settings_record,
)
from coordinator.settings import ErasureSettings
from storage.digests import canonical_json
from storage.errors import Invalid

GOOD = """\
name  = "fashion"
store = "./federation"

[data]
train    = "data/train.parquet"
id       = "id"
label    = "label"
features = ["x*"]
classes  = ["0", "1"]

[training]
epochs = 20
batch_size = 16
learning_rate = 0.05

[partition]
shards = 5
slices = 5
"""
SECRET = "c0ffee" * 8
SETTINGS = {
    "": "name store endpoint keys credentials",
    "data": "train id label features classes target label_shift label_scale subject subject_form scale encode"
    " holdout ingest_memory_mb endpoint credentials delimiter encoding decimal version",
    "model": "factory arguments files learner guarantee",
    "training": "epochs batch_size learning_rate optimizer seed momentum nesterov weight_decay betas epsilon"
    " optimizer_arguments loss label_smoothing class_weights gradient_clip schedule augment step engine"
    " kernels",
    "partition": "shards slices key",
    "aggregation": "rule",
    "erasure": "batch batch_window_seconds deadline_days lead_days extension_days alarm_margin",
    "receipts": "witness endpoint",
    "cluster": "address cpus_per_worker gpus_per_worker threads_per_worker workers ingest_workers niceness labels",
    "serve": (
        "host port prefix replicas cpus_per_replica refresh_seconds"
        " max_body_bytes body_seconds max_points max_names requests_per_minute lookups_per_minute"
    ),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the specification is to lie."""
    return tmp_path / "sisa.toml"


def read(file: Path, text: str) -> FederationSpecification:
    """Write ``text`` and read it as a specification."""
    file.write_text(text, encoding="utf-8")
    return read_specification(file)


def refusal(file: Path, text: str) -> str:
    """Return the text of the error that ``text`` is refused with."""
    with pytest.raises(Invalid, match=re.escape(file.name)) as caught:
        read(file, text)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    """Return the good specification with one passage replaced."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_every_setting_is_known_here() -> None:
    """The settings are these and no others: a new one is added on purpose."""
    found = {table: " ".join(field.name for field in dataclasses.fields(kind)) for table, kind in TABLES.items()}
    assert found == SETTINGS


def test_required_settings_suffice(file: Path) -> None:
    """What has a default may be left out, whole tables included."""
    specification = read(file, GOOD)
    assert specification.name == "fashion"
    assert specification.folder == file.parent.resolve()
    assert specification.data.subject_column == "id"
    assert specification.data.classes == ("0", "1")
    assert specification.model.factory == "shards.models:mlp"
    assert specification.aggregation.rule == "mean_probability"
    assert specification.erasure.deadline_days == 30
    assert (specification.erasure.batch, specification.erasure.lead_days) == ("window", 3.0)
    assert specification.erasure.extension_days == 60
    assert (specification.cluster.threads_per_worker, specification.cluster.workers) == (1, None)


def test_every_setting_is_read(file: Path) -> None:
    """A file that states every setting gives just those values."""
    specification = read(
        file,
        f"""\
name = "a.b-c_1"
store = "s3://bucket/prefix"
endpoint = "http://127.0.0.1:8333"
[data]
train = "data/*.csv"
id = "key"
subject = "person"
label = "y"
features = ["a", "b*"]
classes = [0, "1", 10]
scale = [1, 2.5]
ingest_memory_mb = 300
[model]
factory = "my.models:net"
arguments = {{ hidden = [128, 64], activation = "tanh", deep = {{ dropout = 0.5, on = true }} }}
[training]
epochs = 12
batch_size = 8
optimizer = "adamw"
learning_rate = 1
seed = 9
weight_decay = 0
betas = [0.8, 0.9]
epsilon = 1e-6
[partition]
shards = 2
slices = 3
key = "{SECRET}"
[aggregation]
rule = "majority_vote"
[erasure]
batch = "until_due"
batch_window_seconds = 0
deadline_days = 7
lead_days = 1
extension_days = 0
[cluster]
address = "auto"
cpus_per_worker = 0.5
gpus_per_worker = 1
threads_per_worker = 2
workers = 3
""",
    )
    assert specification.data.classes == ("0", "1", "10")
    assert specification.data.scale == (1.0, 2.5)
    assert specification.data.subject_column == "person"
    assert specification.model.arguments == {
        "hidden": [128, 64],
        "activation": "tanh",
        "deep": {"dropout": 0.5, "on": True},
    }
    assert repr(specification.training.learning_rate) == "1.0"
    assert specification.training.betas == (0.8, 0.9)
    assert specification.partition.key == SECRET
    assert SECRET not in repr(specification)
    assert specification.aggregation.rule == "majority_vote"
    assert specification.erasure == ErasureSettings(
        batch="until_due", batch_window_seconds=0.0, deadline_days=7, lead_days=1.0, extension_days=0
    )
    assert specification.cluster.workers == 3


MISTAKES = [
    # unknown names
    (changed("epochs =", "epoch ="), "line 12: [training] epoch is not a known setting; did you mean epochs?"),
    (changed("epochs =", "epoch ="), "line 11: [training] epochs is missing: a whole number is needed"),
    (changed("[training]", "[trainings]"), "line 11: [trainings] is not a known table; did you mean [training]?"),
    (changed("[training]", "[trainings]"), "[training] batch_size is missing: a whole number is needed"),
    (
        changed('id       = "id"', 'id = "id"\nseed = 1'),
        "line 7: [data] seed is not a known setting; it belongs to [tr",
    ),
    (changed('id       = "id"', 'id = "id"\nstore = ""'), "[data] store is not a known setting; it belongs above all"),
    (GOOD + "[qqqq]\n", "line 19: [qqqq] is not a known table; known are [data], [model]"),
    (GOOD + "zzzz = 1\n", "line 19: [partition] zzzz is not a known setting; known are shards, slices, key"),
    (GOOD + "Shards = 1\n", "line 19: [partition] Shards is not a known setting; did you mean shards?"),
    ("seeds = 1\n" + GOOD, "line 1: seeds is not a known setting; known are name, store"),
    (GOOD + "[model]\nargument = {}\n", "line 20: [model] argument is not a known setting; did you mean arguments?"),
    # missing
    ("", "name is missing: text is needed"),
    (changed('name  = "fashion"\n', ""), "sisa.toml has 1 problem:\n  name is missing: text is needed"),
    (changed('label    = "label"\n', ""), "line 4: [data] label is missing: text or a list of texts is needed"),
    (changed('features = ["x*"]\n', ""), "line 4: [data] features is missing: a list of texts is needed"),
    # wrong types
    (changed("epochs = 20", 'epochs = "20"'), 'line 12: [training] epochs must be a whole number, got the text "20"'),
    (changed("epochs = 20", "epochs = 20.0"), "[training] epochs must be a whole number, got the number 20.0"),
    (changed("epochs = 20", "epochs = true"), "[training] epochs must be a whole number, got true"),
    (changed("epochs = 20", "epochs = 2020-01-01"), "[training] epochs must be a whole number, got a date or time"),
    (changed("0.05", "false"), "line 14: [training] learning_rate must be a number, got false"),
    (changed("0.05", '"fast"'), '[training] learning_rate must be a number, got the text "fast"'),
    (changed('["x*"]', '"x*"'), 'line 8: [data] features must be a list of texts, got the text "x*"'),
    (
        changed('["x*"]', '["x", 1]'),
        "features must be a list of texts, got a list of 2, among them a text and a whole nu",
    ),
    (
        changed('["0", "1"]', "[0, true]"),
        "[data] classes must be a list of texts or whole numbers, got a list of 2, amo",
    ),
    (
        changed('["0", "1"]', "[0.0, 1.0]"),
        "classes must be a list of texts or whole numbers, got a list of 2, among them a n",
    ),
    (changed('"data/train.parquet"', "1999-01-01"), "line 5: [data] train must be text, got a date or time"),
    (changed('"data/train.parquet"', "[]"), "[data] train must be text, got a list"),
    (changed('"fashion"', "7"), "line 1: name must be text, got the whole number 7"),
    (changed("shards = 5", "shards = nan"), "line 17: [partition] shards must be a whole number, got the number nan"),
    (GOOD + "key = 123456789\n", "line 19: [partition] key must be text, got a whole number"),
    (changed('["0", "1"]', '["0", "1"]\nscale = "255"'), "scale must be a number or a list of numbers, got the text"),
    (
        changed('["0", "1"]', '["0", "1"]\nsubject = {}'),
        "line 10: [data] subject must be text or a list of texts, got a table",
    ),
    (changed("0.05", "0.05\nbetas = [0.9]"), "[training] betas must be a list of 2 numbers, got a list of 1"),
    (
        changed("0.05", "0.05\nnesterov = 1"),
        "line 15: [training] nesterov must be true or false, got the whole number 1",
    ),
    ("model = 3\n" + GOOD, "line 1: [model] must be a table, got the whole number 3"),
    (
        changed('store = "./federation"', 'store = "./federation"\nendpoint = "http://host"'),
        "endpoint is the address of an S3 server: leave it out",
    ),
    ("[[cluster]]\n" + GOOD.replace("name", "#").replace("store", "#"), "[cluster] must be a table, got a list of 1"),
    (
        GOOD + "[model]\narguments = [1]\n",
        "[model] arguments must be a table of texts, finite numbers, booleans, lists",
    ),
    (
        GOOD + "[model]\narguments = { a = [{ b = 07:32:00 }] }\n",
        "lists and tables, got a table with a date, a time or an",
    ),
    (GOOD + "[model]\narguments = { a = [nan] }\n", "lists and tables, got a table with a date, a time or an inf"),
    # out of range
    (changed("epochs = 20", "epochs = 0"), "line 12: [training] epochs must be at least 1, got 0"),
    (
        changed("epochs = 20", "epochs = 2"),
        "line 12: [training] epochs = 2 gives some of 5 slices no epoch. Set epochs",
    ),
    (changed("0.05", "inf"), "line 14: [training] learning_rate must be above 0, got inf"),
    (changed("0.05", "nan"), "[training] learning_rate must be above 0, got nan"),
    (changed("0.05", "0.05\nseed = -1"), "line 15: [training] seed must be 0 .. 2**63 - 1, got -1"),
    (changed("shards = 5", "shards = 0"), "line 17: [partition] shards must be 1 .. 4096, got 0"),
    (changed("slices = 5", "slices = 5000"), "line 18: [partition] slices must be 1 .. 4096, got 5000"),
    (GOOD + 'key = "xyz"\n', "line 19: [partition] key must be 16 to 64 bytes in hexadecimal"),
    (changed('["0", "1"]', '["0"]'), "line 9: [data] classes needs two or more, got 1"),
    (changed('["0", "1"]', '["1", 1]'), "[data] classes names '1' more than once"),
    (changed('["x*"]', "[]"), "line 8: [data] features is empty"),
    (changed('["0", "1"]', '["0", "1"]\nscale = 0'), "[data] scale must be finite and not zero"),
    (changed('["x*"]', '["x*"]\ningest_memory_mb = 255'), "[data] ingest_memory_mb must be at least 256, got 255"),
    (changed('["x*"]', '["x*"]\nversion = -1'), "line 9: [data] version must be 0 or more, got -1"),
    (changed('["x*"]', '["x*"]\nversion = "3"'), "line 9: [data] version must be a whole number, got the text"),
    (changed('["x*"]', '["x*"]\ndelimiter = "::"'), "line 9: [data] delimiter must be one ASCII character"),
    (changed('["x*"]', "['x*']\ndelimiter = '\"'"), "line 9: [data] delimiter must be one ASCII character"),
    (changed('["x*"]', '["x*"]\ndecimal = "·"'), 'line 9: [data] decimal must be "." or ","'),
    (changed('["x*"]', '["x*"]\nencoding = "utf8x"'), "line 9: [data] encoding must be one that Python knows"),
    (changed('["x*"]', '["x*"]\nencoding = "base64"'), "line 9: [data] encoding must be one that Python knows"),
    (changed('["x*"]', '["x*"]\nencoding = "punycode"'), "line 9: [data] encoding must be one that Python knows"),
    (
        changed('["x*"]', '["x*"]\ningest_memory_mb = 319').replace("data/train.parquet", "s3://bucket/train.parquet"),
        "[data] ingest_memory_mb must be at least 320, got 319",
    ),
    (changed('"fashion"', '"../up"'), "line 1: name must be 1 to 63 letters, digits"),
    (changed('"./federation"', '""'), "line 2: store is empty: name a folder"),
    (GOOD + '[model]\nfactory = "__main__:mlp"\n', "line 20: [model] factory names code of a notebook"),
    (changed("0.05", '0.05\nstep = "__main__:step"'), "line 15: [training] step names code of a notebook"),
    (GOOD + '[model]\nfactory = "mlp"\n', "line 20: [model] factory must read 'module:callable', got 'mlp'"),
    (
        GOOD + '[aggregation]\nrule = "mean"\n',
        "line 20: [aggregation] rule must be one of mean_probability, majority_vote, got the text",
    ),
    (GOOD + "[erasure]\ndeadline_days = 91\n", "line 20: [erasure] deadline_days must be 1 .. 90, got 91"),
    (GOOD + "[erasure]\nbatch_window_seconds = -1\n", "[erasure] batch_window_seconds must be 0 or more, got -1.0"),
    (GOOD + "[erasure]\nbatch_window_seconds = 1e9\n", "batch_window_seconds is longer than deadline_days"),
    (GOOD + '[erasure]\nbatch = "due"\n', "line 20: [erasure] batch must be one of window, until_due, got the text"),
    (GOOD + "[erasure]\nlead_days = -1\n", "line 20: [erasure] lead_days must be 0 or more, got -1.0"),
    (
        GOOD + '[erasure]\nbatch = "until_due"\ndeadline_days = 2\n',
        "[erasure] lead_days is longer than deadline_days: no request would wait for another",
    ),
    (GOOD + "[erasure]\nextension_days = 61\n", "line 20: [erasure] extension_days must be 0 .. 60, got 61"),
    (GOOD + "[receipts]\nwitness = ''\n", "line 20: [receipts] witness is empty: name a folder or an address"),
    (GOOD + "[cluster]\naddress = ''\n", 'line 20: [cluster] address is empty: write "local"'),
    (GOOD + "[cluster]\ncpus_per_worker = 0\n", "[cluster] cpus_per_worker must be above 0, got 0.0"),
    (GOOD + "[cluster]\ngpus_per_worker = -1\n", "[cluster] gpus_per_worker must be 0 or more, got -1.0"),
    (GOOD + "[cluster]\nthreads_per_worker = 0\n", "[cluster] threads_per_worker must be 1 .. 1024, got 0"),
    (GOOD + "[cluster]\nworkers = 0\n", "[cluster] workers must be at least 1, got 0"),
    (GOOD + "[cluster]\ningest_workers = 0\n", "[cluster] ingest_workers must be at least 1, got 0"),
    (
        GOOD + "[cluster]\nniceness = -1\n",
        "line 20: [cluster] niceness must be 0 .. 19, got -1: a worker may only give",
    ),
    (GOOD + "[cluster]\nniceness = 20\n", "line 20: [cluster] niceness must be 0 .. 19, got 20"),
    (
        GOOD + '[cluster]\nlabels = "north"\n',
        'line 20: [cluster] labels must be a table of texts, got the text "north"',
    ),
    (GOOD + "[cluster]\nlabels = { site = 1 }\n", "line 20: [cluster] labels must be a table of texts, got a table"),
    (
        GOOD + '[cluster]\nlabels = { "ray.io/region" = "eu" }\n',
        "line 20: [cluster] labels names 'ray.io/region': what begins with ray.io/ is Ray's own, use names of yours",
    ),
    (
        GOOD + '[cluster]\nlabels = { "-site" = "a" }\n',
        "labels must be named by 1 to 63 letters, digits, '_', '.' or '-'",
    ),
    (GOOD + '[cluster]\nlabels = { "a..b/site" = "a" }\n', "labels must be named by 1 to 63 letters"),
    (
        GOOD + '[cluster]\nlabels = { site = "!north" }\n',
        "[cluster] labels must have values of 1 to 63 letters, digits, ",
    ),
    (GOOD + '[cluster]\nlabels = { site = "in(a,b)" }\n', "'_', '.' or '-', 'site' has 'in(a,b)'"),
    (GOOD + '[cluster]\nlabels = { site = "" }\n', "labels must have values of 1 to 63 letters"),
    (
        changed('"./federation"', '"./federation"\ncredentials = "north"'),
        "line 3: credentials is the name of a profile for an S3 server: leave it out, or name the store s3://",
    ),
    (
        changed('"./federation"', '"s3://b"\ncredentials = ""'),
        "line 3: credentials must be the name of a profile in the AWS",
    ),
    (changed('["x*"]', '["x*"]\ncredentials = "a b"'), "line 9: [data] credentials must be the name of a profile in"),
    # no TOML at all
    (changed("epochs = 20", "epochs 20"), "sisa.toml is not readable TOML at line 12, column 8"),
    (changed("shards = 5", "shards = 5\nshards = 6"), "sisa.toml gives a setting or table twice at line 18, column"),
    (GOOD + "[data]\n", "sisa.toml gives a setting or table twice at line 19, column"),
    (GOOD + "x = [1,\n", "sisa.toml is not readable TOML at line 20, the end of the file"),
    (changed('"fashion"', "fashion"), "sisa.toml is not readable TOML at line 1, column 9"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_mistakes_are_named(file: Path, text: str, message: str) -> None:
    """The error names line, table and setting, what was expected and what the file has."""
    assert message in refusal(file, text)


def test_all_problems_at_once(file: Path) -> None:
    """Unknown, missing, mistyped and out-of-range settings of all tables come in one error, in order of lines."""
    text = (
        GOOD.replace("epochs =", "epoch =").replace("= 16", "= 0").replace("shards = 5", 'shards = "5"')
        + "key = 'ab'\n[cluster]\nworkers = 0\n"
    )
    assert refusal(file, text).splitlines()[:-1] == [
        "sisa.toml has 6 problems:",
        "  line 11: [training] epochs is missing: a whole number is needed",
        "  line 12: [training] epoch is not a known setting; did you mean epochs?",
        "  line 13: [training] batch_size must be at least 1, got 0",
        '  line 17: [partition] shards must be a whole number, got the text "5"',
        "  line 19: [partition] key must be 16 to 64 bytes in hexadecimal (32 to 128 characters)",
    ]


def test_all_problems_of_erasures_at_once(file: Path) -> None:
    """The error names every setting of [erasure] that is out of range, with its line."""
    text = GOOD + "[erasure]\nbatch_window_seconds = -1\ndeadline_days = 0\nlead_days = nan\nextension_days = -1\n"
    reported = refusal(file, text).splitlines()
    assert reported[:4] == [
        "sisa.toml has 4 problems:",
        "  line 20: [erasure] batch_window_seconds must be 0 or more, got -1.0",
        "  line 21: [erasure] deadline_days must be 1 .. 90, got 0",
        "  line 22: [erasure] lead_days must be 0 or more, got nan",
    ]
    assert reported[4].startswith("  line 23: [erasure] extension_days must be 0 .. 60, got -1")


def test_the_data_s_server_is_the_store_s_unless_it_is_named(file: Path) -> None:
    """Data in a bucket are looked for where [data] says, else at the federation's endpoint, else where boto3 looks."""
    store = changed('store = "./federation"', 'store = "s3://bucket/prefix"\nendpoint = "http://store"')
    assert read(file, GOOD).data_endpoint is None
    assert read(file, store).data_endpoint == "http://store"
    own = store.replace('["x*"]', '["x*"]\nendpoint = "http://data"')
    assert (read(file, own).data_endpoint, read(file, own).endpoint) == ("http://data", "http://store")


def test_the_data_s_credentials_are_the_store_s_unless_they_are_named(file: Path) -> None:
    """Data in a bucket are read with the profile that [data] names, else with the federation's, else with boto3's."""
    store = changed('"./federation"', '"s3://bucket/prefix"\ncredentials = "north"')
    assert (read(file, GOOD).credentials, read(file, GOOD).data_credentials) == (None, None)
    assert (read(file, store).credentials, read(file, store).data_credentials) == ("north", "north")
    own = store.replace('["x*"]', '["x*"]\ncredentials = "reader"')
    assert (read(file, own).credentials, read(file, own).data_credentials) == ("north", "reader")
    alone = changed('["x*"]', '["x*"]\ncredentials = "reader"')
    assert read(file, alone).data_credentials == "reader"


def test_credentials_are_never_shown(file: Path) -> None:
    """A key in the place of a profile's name is reported as a mistake, and the error does not show it."""
    key = "AKIA" + "Z" * 16
    for text in (
        changed('"./federation"', f'"s3://bucket"\ncredentials = "{key}"'),
        changed('["x*"]', f'["x*"]\ncredentials = "{key}"'),
        changed('["x*"]', f'["x*"]\ncredentials = "secret/{key}"'),
    ):
        said = refusal(file, text)
        assert "credentials must be the name of a profile" in said
        assert key not in said


def test_labels_are_read(file: Path) -> None:
    """Labels are texts by name, with a prefix where one is given; none are asked for by default."""
    assert read(file, GOOD).cluster.labels == {}
    text = GOOD + '[cluster.labels]\nsite = "north"\n"my.org/rack" = "a.b-c_7"\n'
    assert read(file, text).cluster.labels == {"site": "north", "my.org/rack": "a.b-c_7"}


def test_the_lead_matters_only_to_the_policy_that_uses_it(file: Path) -> None:
    """A deadline shorter than the default lead is fine where batches do not wait until they are due."""
    assert read(file, GOOD + "[erasure]\ndeadline_days = 1\n").erasure.lead_days == 3.0


def test_line_numbers_count_comments_and_long_values(file: Path) -> None:
    """Comments, blank lines, text and lists over several lines do not put the line numbers off."""
    text = (
        changed('["x*"]', '[ # "epochs = 1"\n  "x*",\n\n  "y",\n]') + '[model]\narguments.note = """\nepochs = 7\n"""\n'
    )
    assert "line 16: [training] epochs must be at least 1" in refusal(file, text.replace("epochs = 20", "epochs = 0"))
    assert "line 27: [model] factor is not" in refusal(file, text + "factor = 1\n")


@pytest.mark.parametrize("key", [f'"{SECRET}z"', f'["{SECRET}"]', f'"{SECRET}', f'"{SECRET}"\nkey = "{SECRET}"'])
def test_the_partition_key_is_never_shown(file: Path, key: str) -> None:
    """No error in the key's line shows the key."""
    assert SECRET not in refusal(file, f"{GOOD}key = {key}\n")


def test_a_missing_file_names_the_command(file: Path) -> None:
    """If there is no file, the error names the command that writes one."""
    with pytest.raises(Invalid, match=r"there is no specification sisa\.toml .*Run 'sisa init DATA'"):
        read_specification(file)


def test_a_folder_is_no_specification(tmp_path: Path) -> None:
    """A folder in place of the file is refused as unreadable."""
    with pytest.raises(Invalid, match=r"cannot be read as a file .*Name a readable file with --config"):
        read_specification(tmp_path)


def test_a_byte_order_mark_changes_nothing(file: Path) -> None:
    """A file saved as UTF-8 with a byte order mark is read as one without, and its problems have their lines."""
    file.write_text(GOOD, encoding="utf-8-sig")
    assert read_specification(file).folder == file.parent
    file.write_text("\n" + GOOD.replace("name", "naem", 1), encoding="utf-8-sig")
    with pytest.raises(Invalid, match=r"line 2: naem is not a known setting"):
        read_specification(file)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named(file: Path, encoding: str) -> None:
    """A file saved as UTF-16, as some shells write it, is refused by that name."""
    file.write_bytes(("\ufeff" + GOOD).encode(encoding))
    with pytest.raises(Invalid, match=r"sisa\.toml is UTF-16 text .*Save the file as UTF-8"):
        read_specification(file)


def test_text_must_be_utf8(file: Path) -> None:
    """Bytes that are not UTF-8 are refused with their line."""
    file.write_bytes(b'name = "a"\nstore = "\xff"\n')
    with pytest.raises(Invalid, match=r"sisa\.toml is not UTF-8 text at line 2 .*Save the file as UTF-8"):
        read_specification(file)


@given(st.text(max_size=60))
@example("a = {")
@example("= 1")
@example("[data]\nscale = 1e999")
@example("data = [[{}]]")
@example("\r\n[training]\r\nbetas = [[]]")
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No text leads to another error than Invalid."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text + "\n" + GOOD, encoding="utf-8", newline="")
    try:
        specification = read_specification(file)
    except Invalid:
        return
    assert specification.name == "fashion"


def test_record_is_plain_and_complete(file: Path) -> None:
    """The record survives canonical JSON unchanged, and holds what decides the constituents' bytes."""
    record = settings_record(read(file, GOOD + "[model]\narguments = { hidden = [128] }\n"))
    assert json.loads(canonical_json(record)) == record
    assert record["model"] == {"factory": "shards.models:mlp", "arguments": {"hidden": [128]}}
    assert record["data"]["subject"] == "id"
    assert record["cluster"] == {"threads_per_worker": 1}


def test_record_never_holds_the_key(file: Path) -> None:
    """The record says only whether a partition key is given."""
    given_key = settings_record(read(file, f'{GOOD}key = "{SECRET}"\n'))
    assert SECRET not in json.dumps(given_key)
    assert (given_key["partition"]["key"], settings_record(read(file, GOOD))["partition"]["key"]) == ("given", "drawn")


@pytest.mark.parametrize(
    ("old", "new", "setting"),
    [
        ("epochs = 20", "epochs = 21", "training.epochs"),
        ("epochs = 20", "epochs = 20\nseed = 1", "training.seed"),
        ('["x*"]', '["y*"]', "data.features"),
        ('["0", "1"]', '["1", "0"]', "data.classes"),
        ('["0", "1"]', '["0", "1"]\nscale = 2', "data.scale"),
        ('["0", "1"]', '["0", "1"]\nencode = { x = { hash = 3 } }', "data.encode.x.hash"),
        ("shards = 5", "shards = 6", "partition.shards"),
        ("slices = 5", "slices = 5\n[cluster]\nthreads_per_worker = 2", "cluster.threads_per_worker"),
        ("slices = 5", "slices = 5\n[model]\narguments = { hidden = [3] }", "model.arguments.hidden"),
        ("0.05", "0.05\ngradient_clip = 1", "training.gradient_clip"),
        ("0.05", '0.05\nkernels = "fused"', "training.kernels"),
        ("0.05", "0.05\nclass_weights = [1, 2]", "training.class_weights"),
        ("0.05", '0.05\nschedule = { kind = "step", at = [0.5] }', "training.schedule.at"),
    ],
)
def test_a_setting_that_changes_results_changes_the_record(file: Path, old: str, new: str, setting: str) -> None:
    """Each setting that decides bytes is found by name when it differs."""
    before, after = settings_record(read(file, GOOD)), settings_record(read(file, changed(old, new)))
    assert setting in {difference.setting for difference in describe_difference(before, after)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"./federation"', '"./elsewhere"'),
        ("0.05", "5e-2"),
        ("0.05", "0.05\nmomentum = 0"),
        ("0.05", '0.05\nengine = "replay"'),
        ("0.05", '0.05\nengine = "eager"'),
        ("0.05", '0.05\nkernels = "separate"'),
        ("0.05", '0.05\nloss = "cross_entropy"\nlabel_smoothing = 0\nschedule = {}\noptimizer_arguments = {}'),
        ('["0", "1"]', "[0, 1]"),
        ('["0", "1"]', '["0", "1"]\nsubject = "id"'),
        ('["0", "1"]', '["0", "1"]\ningest_memory_mb = 300'),
        ('["0", "1"]', '["0", "1"]\ndelimiter = ";"\nencoding = "cp1252"\ndecimal = ","'),
        ('["0", "1"]', '["0", "1"]\nversion = 3'),
        ('["0", "1"]', '["0", "1"]\nendpoint = "http://127.0.0.1:8333"'),
        ('["0", "1"]', '["0", "1"]\nencode = {}'),
        ("slices = 5", "slices = 5\n[erasure]\ndeadline_days = 3\n[cluster]\nworkers = 2\ncpus_per_worker = 2"),
        ("slices = 5", 'slices = 5\n[cluster]\nlabels = { site = "north" }'),
        ('"./federation"', '"s3://bucket"\ncredentials = "north"'),
        ('["0", "1"]', '["0", "1"]\ncredentials = "north"'),
    ],
)
def test_a_setting_that_changes_nothing_leaves_the_record(file: Path, old: str, new: str) -> None:
    """Another spelling, place, account, deadline, number or place of workers is the same federation."""
    before, after = settings_record(read(file, GOOD)), settings_record(read(file, changed(old, new)))
    assert describe_difference(before, after) == []


def test_differences_stand_side_by_side() -> None:
    """A difference names the setting with both values; a setting that one side lacks is absent there."""
    assert describe_difference(
        {"training": {"seed": 7, "betas": [1, 2]}, "name": "a"}, {"training": {"seed": 8, "betas": [1, 2]}, "new": "b"}
    ) == [("name", '"a"', "absent"), ("new", "absent", '"b"'), ("training.seed", "7", "8")]
