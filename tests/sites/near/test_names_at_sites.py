"""What a name means is each site's own matter: its form, who is unknown there, who is spelt alike."""

from __future__ import annotations

import pytest

import cluster
from cluster.client import Client
from cluster.sites.federation import connect_sites
from cluster.sites.link import NearSite
from coordinator.receipts.bundles import statement_of
from coordinator.receipts.openings import commitment
from storage.errors import Invalid
from tests.doubles.user_folder import run
from tests.sites.near.asked import PERSON, joined
from tests.sites.near.served import listening, served
from tests.sites.near.site_folders import SiteFolders
from tests.sites.near.test_sites_api import front_of

RESPELT = "North-Secret-Person 003"
NOBODY = "nobody-of-this-name"


def own_form(site_folders: SiteFolders, site: str, form: str) -> None:
    """Have one site say which spellings of a name are one person there."""
    text = site_folders.config.read_text(encoding="utf-8")
    site_folders.config.write_text(
        text.replace(f'name = "{site}"\n', f'name = "{site}"\ndata.subject_form = "{form}"\n')
    )


def test_each_site_has_its_own_form(site_folders: SiteFolders) -> None:
    """What one site takes for one name is another one at the next; the federation's own form is that of the others."""
    own_form(site_folders, "north", "casefold")
    with connect_sites(site_folders.config) as federation:
        status = federation.train()
        assert [each.status.subject_form for each in status.sites if each.status] == ["casefold", "trimmed", "trimmed"]
        there = federation.erase("north", subjects=[PERSON.upper()], request_id="er-1")
        assert (there.state, there.points) == ("complete", 4)
        elsewhere = federation.erase("south", subjects=["south-secret-person-003".upper()], request_id="er-2")
        assert (elsewhere.state, elsewhere.similar.points) == ("refused", 4)


@pytest.mark.parametrize("is_near", [True, False])
def test_an_erasure_at_a_site_tells_its_asker_the_same(site_folders: SiteFolders, is_near: bool) -> None:
    """However a site is reached: who is spelt alike, who is unknown, and the salt of a request that found nothing."""
    with served(site_folders) as world, joined(world):
        link_to = {"link_to": NearSite} if is_near else {}
        if is_near:
            for site in world.sites.values():
                site.resident.stop()
        with connect_sites(site_folders.config, **link_to) as federation:
            none = federation.erase("north", subjects=[RESPELT], request_id="er-1")
            assert (none.state, none.similar.points, none.unknown_names) == ("refused", 4, (RESPELT,))
            stated = statement_of(federation.receipt("er-1", "north").at_site)["predicate"]["request"]
            assert stated["digest"] == commitment(none.salt, subjects=[RESPELT])
            names = (name for name in (NOBODY, RESPELT))
            done = federation.erase("north", subjects=names, request_id="er-2", include_similar=True)
            assert (done.state, done.points, done.unknown_subjects) == ("complete", 4, (0,))
            receipt = statement_of(federation.receipt("er-2", "north").at_site)["predicate"]["request"]
            assert receipt["commitment"] == commitment(done.salt, subjects=[NOBODY, RESPELT])
            again = federation.erase("north", subjects=[NOBODY, RESPELT], request_id="er-2", include_similar=True)
            assert again.unknown_names == (NOBODY,)


def test_the_federations_server_passes_it_on(site_folders: SiteFolders) -> None:
    """A caller gets the same answer through two servers: the site's, and the federation's in front of it."""
    with served(site_folders) as world:
        front = front_of(world)
        with listening(front.client.app) as port, Client(f"http://127.0.0.1:{port}", front.tokens["erase"]) as client:
            none = client.erase(subjects=[RESPELT], site="north", request_id="er-1", wait_seconds=60)
            assert (none.state, none.similar.points, none.unknown_names, bool(none.salt)) == (
                "refused",
                4,
                (RESPELT,),
                True,
            )
            words = {"subjects": [NOBODY, RESPELT], "site": "north", "request_id": "er-2", "include_similar": True}
            done = client.erase(**words, wait_seconds=60)  # type: ignore[arg-type]
            assert (done.state, done.points, done.unknown_names, bool(done.salt)) == ("complete", 4, (NOBODY,), True)
        assert not {"salt", "unknown_names"} & front.get("/v1/erasures/er-2").json().keys()
        front.service.close()
        assert NOBODY not in front.log.getvalue()


def test_the_command_tells_the_same(site_folders: SiteFolders) -> None:
    """'sisa site erase' names who is unknown, by name and by line, and takes those along who are spelt alike."""
    assert site_folders.json("train").code == 0
    config = ("--config", str(site_folders.config))
    file = site_folders.folder / "names.txt"
    file.write_text(f"{RESPELT}\n{NOBODY}\n", encoding="utf-8")
    words = ("site", "erase", "north", *config, "--subject", "no-such-person", "--file", str(file))
    done = run(*words, "--include-similar", "--request-id", "er-1", "--json").data
    assert (done["state"], done["points"]) == ("complete", 4)
    assert (done["unknown_names"], done["unknown_lines"]) == (["no-such-person"], [2])
    none = run("site", "erase", "north", *config, "--subject", NOBODY, "--request-id", "er-2")
    assert (none.code, f"no data point here of: {NOBODY}" in none.out) == (2, True)
    with connect_sites(site_folders.config) as federation:
        stated = statement_of(federation.receipt("er-2").at_site)["predicate"]["request"]
    assert stated["digest"] == commitment(none.out.split()[-1], subjects=[NOBODY])


def test_somebody_comes_back_to_a_site(site_folders: SiteFolders) -> None:
    """'sisa --site NAME readmit' acts on the site's own federation, and its statement is that site's."""
    assert site_folders.json("train").code == 0
    config = ("--config", str(site_folders.config))
    assert run("site", "erase", "north", *config, "--subject", PERSON, "--request-id", "er-1").code == 0
    words = ("readmit", "--subject", PERSON, "--reason", "came back", "--request-id", "re-1")
    assert "this command acts on one of them" in site_folders.json(*words).error["message"]
    assert run("--site", "north", *words, *config, "--json").data["subjects"] == 1
    with cluster.connect(site_folders.site("north").specification) as alone:
        assert statement_of(alone.registrar.find("re-1"))["predicate"]["reason"] == "came back"
        with pytest.raises(Invalid, match="none of"):
            alone.readmit(subjects=["north-secret-person-004"], reason="never erased")
