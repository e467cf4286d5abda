"""The user's own modules: each federation of a process finds those beside its own specification."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch import nn

from cluster.runtime.user_code import make_importable
from shards.learners.torch.factory import build_model
from shards.learners.torch.model_code import model_code_digest
from shards.specification import ModelSettings, TrainingSettings

PLAIN = ModelSettings(factory="twin_net:build")
TRAINING = TrainingSettings(epochs=1, batch_size=1, learning_rate=0.1)
PACKED = ModelSettings(factory="twin_pack.net:build")


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave neither paths nor modules behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("twin_")]:
        del sys.modules[name]


def _model(width: int) -> str:
    return f"from torch import nn\n\ndef build(inputs, classes):\n    return {_network(width)}\n"


def _network(width: int | str) -> str:
    return f"nn.Sequential(nn.Linear(inputs, {width}), nn.Linear({width}, classes))"


def _with_helper(folder: Path, width: int) -> Path:
    """Write a model module that takes its width from a module beside it."""
    folder.mkdir(parents=True)
    (folder / "twin_sizes.py").write_text(f"WIDTH = {width}\n")
    lines = ("from torch import nn", "import twin_sizes", "", "def build(inputs, classes):")
    (folder / "twin_net.py").write_text("\n".join([*lines, f"    return {_network('twin_sizes.WIDTH')}", ""]))
    return folder


def _packed(folder: Path, width: int, *, regular: bool) -> Path:
    """Write the model module into a package, with or without an ``__init__.py``."""
    (folder / "twin_pack").mkdir(parents=True)
    (folder / "twin_pack" / "net.py").write_text(_model(width))
    if regular:
        (folder / "twin_pack" / "__init__.py").write_text("")
    return folder


def _width(folder: Path, settings: ModelSettings = PLAIN) -> int:
    """Return the hidden width of the model that a federation in ``folder`` builds."""
    make_importable(folder)
    first = next(build_model(settings, 4, 2).children())
    assert isinstance(first, nn.Linear)
    return first.out_features


def test_modules_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """Each federation builds its own network, with its own helper module, regardless of the order of turns."""
    one, other = _with_helper(tmp_path / "one", 3), _with_helper(tmp_path / "other", 5)
    assert [_width(folder) for folder in (one, other, one, one, other)] == [3, 5, 3, 3, 5]


def test_code_digests_differ(tmp_path: Path) -> None:
    """The digest of the model's code is that of the federation's own files, the helper's included."""
    digests = []
    for folder in (_with_helper(tmp_path / "one", 3), _with_helper(tmp_path / "other", 5)):
        make_importable(folder)
        digests.append(model_code_digest(PLAIN, TRAINING))
    assert digests[0] != digests[1]
    make_importable(tmp_path / "one")
    assert model_code_digest(PLAIN, TRAINING) == digests[0]


@pytest.mark.parametrize("regular", [True, False])
def test_packages_of_one_name(tmp_path: Path, regular: bool) -> None:
    """Submodules of a package are the federation's own, too; also where packages have no ``__init__.py``."""
    one = _packed(tmp_path / "one", 3, regular=regular)
    other = _packed(tmp_path / "other", 5, regular=regular)
    assert [_width(folder, PACKED) for folder in (one, other, one)] == [3, 5, 3]


def test_a_folder_inside_another(tmp_path: Path) -> None:
    """A federation in a subfolder of another federation's folder imports its own modules."""
    one = _with_helper(tmp_path / "one", 3)
    inner = _with_helper(one / "inner", 5)
    assert [_width(folder) for folder in (one, inner, one, inner)] == [3, 5, 3, 5]


def test_what_need_not_be_forgotten_stays(tmp_path: Path) -> None:
    """The same folder again, or another without that name, leaves modules as they are; so do installed packages."""
    one = _with_helper(tmp_path / "one", 3)
    assert _width(one) == 3
    kept = sys.modules["twin_net"]
    make_importable(one)
    (tmp_path / "other" / "torch").mkdir(parents=True)
    (tmp_path / "other" / "shards").mkdir()
    make_importable(tmp_path / "other")
    assert sys.modules["twin_net"] is kept
    assert sys.modules["torch"].nn is nn
    assert "shards.learners.torch.factory" in sys.modules


def test_the_last_folder_comes_first(tmp_path: Path) -> None:
    """A folder made importable again goes to the front of the path and is there once."""
    for name in ("one", "other", "one"):
        make_importable(tmp_path / name)
    assert sys.path[:2] == [str(tmp_path / "one"), str(tmp_path / "other")]
    assert sys.path.count(str(tmp_path / "one")) == 1


class _Interruption:
    """Lets another thread go on wherever it is collected as garbage: in the middle of anything."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


@pytest.fixture
def _often_interrupted() -> Iterator[None]:
    """Garbage is collected, and threads take turns, as often as can be."""
    kept, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*kept)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_often_interrupted")
def test_many_threads_name_one_code() -> None:
    """Coordinator and replicas of one process look at the model's code at a time: all see the same."""

    def name(_: int) -> str:
        for _ in range(5):
            _Interruption()
        return model_code_digest(ModelSettings(factory="shards.models:mlp"), TRAINING)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(name, range(200)))) == 1
