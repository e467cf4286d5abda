"""Features of several sites: matched by name, never by position, and encoded once, before a site is asked."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.site_server import arranged
from cluster.writer.training_data import asked_of_sites
from coordinator.aggregation import ModelFailed
from coordinator.ports import Notice, Remark
from shards.encoders import CategoryEncoder
from shards.encoding import Encoding
from storage.errors import Invalid, Unavailable
from tests.doubles.user_folder import Columns, small_points
from tests.serving.bodies.test_model_errors import MODEL, UNKNOWN
from tests.serving.world import rows
from tests.sites.near.asked import NAMES, features, joined, remote
from tests.sites.near.served import served
from tests.sites.near.site_folders import SITES, SiteFolders, people_of
from tests.sites.near.test_simulated_sites import Unreachable
from tests.sites.near.test_sites_api import front_of

QUORUM = "[sites]\nquorum = 2\ntimeout_seconds = 20.0\ngrace_seconds = 20.0\n"


def turned(columns: Columns) -> Columns:
    """Return the same columns in the opposite order."""
    return dict(reversed(columns.items()))


def renamed(columns: Columns) -> Columns:
    """Return the same columns, one of them under another name."""
    return {{"x07": "x99"}.get(name, name): values for name, values in columns.items()}


def scores(federation: SiteFederation, site_folders: SiteFolders) -> list[float]:
    """Return what the federation says of some data points."""
    path = site_folders.write("asked", small_points(people=5))
    found: list[float] = federation.predict(path).table().column("probability_a").to_pylist()
    return found


@pytest.mark.parametrize("leaves", ["predictions", "weights"])
def test_a_site_may_have_its_columns_in_another_order(site_folders: SiteFolders, leaves: str) -> None:
    """Each site's part in the answer is its own answer, regardless of the order of its columns."""
    site_folders.write("south", turned(people_of("south", 1)))
    site_folders.specify(each=f'leaves = "{leaves}"')
    with connect_sites(site_folders.config) as federation:
        federation.train()
        asked = features(20)
        together = federation.answer(asked, NAMES).scores_NS
        own = [federation.link(site) for site in SITES]
        assert own[1].standing().features == NAMES[::-1]
        parts = [link.answer(asked, NAMES).scores_NS for link in own]
        np.testing.assert_allclose(together, np.mean(parts, axis=0), atol=1e-6)
        again = [link.answer(np.ascontiguousarray(asked[:, ::-1]), NAMES[::-1]).scores_NS for link in own]
        np.testing.assert_array_equal(np.stack(parts), np.stack(again))


def test_the_order_is_the_federations_whoever_is_away(site_folders: SiteFolders) -> None:
    """Lists of features mean the same while the first site is away as while it is there."""
    site_folders.write("south", turned(people_of("south", 1)))
    site_folders.specify(settings=QUORUM)
    sites = Unreachable()
    with connect_sites(site_folders.config, link_to=sites.link) as federation:
        federation.train()
        assert federation.layout().features == NAMES
        sites.away = {"north"}
        assert federation.layout().features == NAMES
        assert len(scores(federation, site_folders)) == 20


def test_other_names_are_refused_with_them(site_folders: SiteFolders) -> None:
    """Training reports a site whose features have other names; it has no part in answers, which give the reason."""
    site_folders.write("west", renamed(people_of("west", 2)))
    reported = list[str]()

    def listen(notice: Notice) -> None:
        if isinstance(notice, Remark):
            reported.append(notice.text)

    for leaves in ("predictions", "weights"):
        site_folders.specify(settings=QUORUM, each=f'leaves = "{leaves}"')
        with connect_sites(site_folders.config, listener=listen) as federation:
            federation.train()
            answers = federation.predict(site_folders.write("asked", small_points(people=5)))
            assert [each.site for each in answers.sites] == ["north", "south"]
            assert "it has no 'x07'; it has 'x99'" in answers.absent["west"]
    assert any("site west has no part in answers" in text and "'x99'" in text for text in reported)
    site_folders.specify()
    with (
        connect_sites(site_folders.config) as federation,
        pytest.raises(Unavailable, match="2 of 3 sites answer.*west: .*'x07'.*'x99'"),
    ):
        federation.predict(site_folders.write("asked", small_points(people=5)))


def test_the_first_site_decides(site_folders: SiteFolders) -> None:
    """When the federation's features change, those of the first site are the federation's once all have trained."""
    for number, site in enumerate(SITES):
        site_folders.write(site, renamed(people_of(site, number)))
    with connect_sites(site_folders.config) as federation:
        federation.train()
        assert federation.layout().features == tuple(sorted({*NAMES, "x99"} - {"x07"}, key=_place))
    for number, site in enumerate(SITES):
        site_folders.write(site, people_of(site, number))
    with connect_sites(site_folders.config) as federation:
        federation.train()
        assert federation.layout().features == NAMES
        assert len(scores(federation, site_folders)) == 20


def _place(name: str) -> int:
    return 7 if name == "x99" else int(name[1:])


def test_features_are_arranged_by_name() -> None:
    """Columns move with their names; other names and other numbers are refused."""
    asked = np.array([[1, 2, 3]], np.float32)
    assert arranged(asked, ("a", "b", "c"), ("c", "a", "b"), 3).tolist() == [[3, 1, 2]]
    assert arranged(asked, ("a",), ("a",), 3) is asked
    with pytest.raises(Invalid, match="it has no 'a', 'b'; it has 'd', 'e', which the others do not have"):
        arranged(asked, ("a", "b", "c"), ("c", "d", "e"), 3)
    with pytest.raises(Invalid, match="have 3 features, this site's have 2: it has no 'b'"):
        arranged(asked, ("a", "b", "c"), ("c", "a"), 2)


def test_sites_with_servers_of_their_own(site_folders: SiteFolders) -> None:
    """Over HTTP, too, columns go by name: as a file, as lists, and by column, the first site there or away."""
    site_folders.write("south", turned(people_of("south", 1)))
    with served(site_folders) as made:
        front = front_of(made)
        expected = front.predict().json()["predictions"]
        with connect_sites(site_folders.config) as federation:
            parts = [federation.link(site).answer(np.array(rows(), np.float32), NAMES).scores_NS for site in SITES]
        found = np.array([line["probabilities"] for line in expected], np.float32)
        np.testing.assert_allclose(found, np.mean(parts, axis=0), atol=1e-6)
        columns = {"id": [0, 1, 2], **{name: [each[n] for each in rows()] for n, name in enumerate(NAMES)}}
        assert front.predict({"columns": turned(columns)}).json()["predictions"] == expected
        front.service.close()


def test_values_that_no_model_takes_are_the_askers_matter(site_folders: SiteFolders) -> None:
    """If sites do not answer because their model fails on a data point, the error does not call them away."""
    (site_folders.folder / "picky_model.py").write_text(MODEL, encoding="utf-8")
    text = site_folders.config.read_text(encoding="utf-8")
    arguments = "arguments = { hidden = [6] }"
    assert arguments in text
    site_folders.config.write_text(text.replace(arguments, 'factory = "picky_model:build"'), encoding="utf-8")
    for leaves in ("predictions", "weights"):
        changed = site_folders.config.read_text(encoding="utf-8").replace(
            "[[site]]\n", f'[[site]]\nleaves = "{leaves}"\n'
        )
        (site_folders.folder / f"{leaves}.toml").write_text(changed, encoding="utf-8")
        with connect_sites(site_folders.folder / f"{leaves}.toml") as federation:
            federation.train()
            asked = features(5)
            asked[3, 0] = UNKNOWN
            with pytest.raises(ModelFailed, match=r"raises IndexError \[point=3\]"):
                federation.answer(asked, NAMES)


ENCODE = """encode = { "x*" = { scale = 255.0 }, p_plan = { categories = ["free", "pro"], other = true }, \
p_note = { words = 5, missing = true } }"""


def with_texts(columns: Columns) -> Columns:
    """Return the columns with two of texts."""
    count = len(columns["id"])
    columns["p_plan"] = [("free", "pro", "gold")[number % 3] for number in range(count)]
    columns["p_note"] = [f"word{number % 4} again" if number % 5 else None for number in range(count)]
    return columns


class EncodedHouses(SiteFolders):
    """Sites whose specification declares encoders."""

    def specify(self, **settings: object) -> Path:
        """Write the specification."""
        config = SiteFolders.specify(self, **settings)  # type: ignore[arg-type]
        text = config.read_text(encoding="utf-8")
        text = text.replace('features = ["x*"]', 'features = ["x*", "p*"]').replace("scale = 255.0", ENCODE)
        config.write_text(text, encoding="utf-8")
        return config


@pytest.fixture
def encoded(tmp_path: Path) -> EncodedHouses:
    """Three sites, one of them with its columns in another order."""
    houses = EncodedHouses(tmp_path)
    for number, name in enumerate(SITES):
        columns = with_texts(people_of(name, number))
        houses.write(name, turned(columns) if name == "south" else columns)
    houses.specify()
    return houses


def _check(federation: SiteFederation, houses: SiteFolders) -> None:
    """Check that the answer to a file is the mean of what each site says of it by itself."""
    path = houses.write("asked", with_texts(people_of("asked", 1)))
    together = federation.predict(path).table().column("probability_a").to_pylist()
    layout = federation.layout()
    data = houses.specification.sites[0].specification
    (batch,) = asked_of_sites(data, layout, path, labelled=False, remark=lambda _: None)
    assert batch.features_NF.shape[1] == layout.width == 16 + 3 + 5
    parts = [federation.link(site).answer(batch.features_NF, layout.features).scores_NS for site in SITES]
    np.testing.assert_allclose(together, np.mean(parts, axis=0)[:, 0], atol=1e-6)
    assert federation.link("south").standing().features == layout.features[15::-1] + layout.features[:15:-1]


@pytest.mark.parametrize("leaves", ["predictions", "weights"])
def test_encoded_columns_at_sites_of_one_cluster(encoded: EncodedHouses, leaves: str) -> None:
    """Encoded columns move as a whole where a site has its columns in another order."""
    encoded.specify(each=f'leaves = "{leaves}"')
    with connect_sites(encoded.config) as federation:
        federation.train()
        _check(federation, encoded)


def test_encoded_columns_at_sites_with_servers(encoded: EncodedHouses) -> None:
    """Encoded features cross to a site as they are; a site that encodes otherwise refuses them."""
    with served(encoded) as world:
        with joined(world) as federation:
            _check(federation, encoded)
        asked = np.zeros((1, 24), np.float32)
        with closing(remote(world, "north")) as link:
            assert link.answer(asked, link.standing().features).scores_NS.shape == (1, 3)
        text = encoded.config.read_text(encoding="utf-8").replace('"free", "pro"', '"pro", "free"')
        encoded.config.write_text(text, encoding="utf-8")
        with (
            closing(remote(world, "north")) as link,
            pytest.raises(Invalid, match=r"encoded otherwise than this federation's.*same specification"),
        ):
            link.answer(asked, link.standing().features)


def test_encoded_columns_move_as_a_whole() -> None:
    """The features of an encoded column stay together and in order."""
    encoding = Encoding({"b": CategoryEncoder(categories=("x", "y", "z"))})
    asked = np.array([[1, 20, 21, 22, 3]], np.float32)
    assert arranged(asked, ("a", "b", "c"), ("b", "c", "a"), 5, encoding).tolist() == [[20, 21, 22, 3, 1]]
