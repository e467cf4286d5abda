"""A federation's access to a remote site: its token, and the encryption of the connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.client import Client, NotAllowed
from cluster.config.sites import read_sites
from cluster.sites.federation import connect_sites
from cluster.sites.remote import NotLetIn, RemoteSite
from storage.errors import Invalid, Unavailable
from tests.sites.near.asked import NAMES, absent, features, joined, remote
from tests.sites.near.served import Served, SiteProxy, listening
from tests.sites.near.site_folders import SiteFolders


@pytest.mark.parametrize("role", ["predict", "erase", "audit"])
def test_other_roles_read_no_standing_and_no_checkpoint(world: Served, role: str) -> None:
    """Only a federation reads a site's standing and its checkpoints, and only it erases everyone."""
    north = world.sites["north"]
    token = north.tokens.create(role, days=1).text
    with Client(f"http://127.0.0.1:{north.port}", token) as client:
        for act in (client.standing, lambda: client.checkpoint(0, "0" * 64), lambda: client.erase_everyone("er-1")):
            with pytest.raises(NotAllowed, match=f"a token with the role '{role}' may not"):
                act()
    assert north.resident.state().requests == ()


@pytest.mark.parametrize("case", ["stranger", "role", "expired", "revoked", "none", "nonsense"])
def test_tokens_that_open_nothing(world: Served, case: str) -> None:
    """A site that does not let the federation in is absent; the error names site and role and never the token."""
    tokens = world.sites["north"].tokens
    makers: dict[str, Callable[[], str]] = {
        "stranger": lambda: world.sites["south"].tokens.create("federate", days=1).text,
        "role": lambda: tokens.create("audit", days=1).text,
        "expired": lambda: tokens.create("federate", days=1e-9).text,
        "revoked": lambda: revoked(world),
        "none": lambda: "",
        "nonsense": lambda: "sisa_secret_secret",
    }
    made = makers[case]()
    with joined(world) as federation:
        world.hand_over("north", made)
        assert "secret" not in absent(federation, world)
        link = remote(world)
        with pytest.raises(NotLetIn, match="does not let this federation in: .*site=north role=federate") as caught:
            link.standing()
        for secret in filter(None, (made, made[-64:])):
            assert secret not in f"{caught.value!r} {link!r} {federation.status()}"
        if case != "role":  # an auditor may see how the site is
            assert federation.status().waits_for == ("north",)
            with pytest.raises(Unavailable, match="away: north .the site does not let this federation in"):
                federation.request("er-1")
        world.hand_over("north", tokens.create("federate", days=1).text)
        until_let_in(link)  # a new token is read where the old one was refused
        link.close()


def until_let_in(link: RemoteSite) -> None:
    """Return when the site knows the token: it looks for new ones only so often."""
    while True:
        with suppress(NotLetIn):
            assert link.standing().shards == 2
            return


def revoked(world: Served) -> str:
    """Return a token that was revoked."""
    tokens = world.sites["north"].tokens
    made = tokens.create("federate", days=1)
    tokens.revoke(made.record.token_id)
    return made.text


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o620, 0o777])
def test_a_token_that_others_can_read_is_not_used(world: Served, mode: int) -> None:
    """A token's file that others may read, or its group write, is refused before anything is sent."""
    (world.site_folders.folder / "north.token").chmod(mode)
    link = remote(world)
    with pytest.raises(NotLetIn, match="others may read the site's token.* 'chmod 600 north.token'"):
        link.standing()
    (world.site_folders.folder / "north.token").unlink()
    with pytest.raises(NotLetIn, match="token cannot be read: No such file"):
        link.standing()
    assert world.sites["north"].boundary.crossed == []


def test_a_token_file_as_it_should_be(world: Served) -> None:
    """A file for its owner alone, or for a group to read, is used; its text is nowhere in what the link shows."""
    for mode in (0o600, 0o400, 0o440):
        (world.site_folders.folder / "north.token").chmod(mode)
        link = remote(world)
        assert link.standing().shards == 2
        assert "sisa_" not in f"{link!r} {world.link_site('north')!r}"
        link.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "site.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "site.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def test_a_site_behind_tls(world: Served, authority: Path) -> None:
    """A site's own authority is trusted where its table names it, and nowhere else."""
    certificate, key = str(authority / "site.pem"), str(authority / "site.key")
    boundary: SiteProxy = world.sites["north"].boundary
    with listening(boundary, ssl_certfile=certificate, ssl_keyfile=key) as port:
        url = f"https://127.0.0.1:{port}"
        world.specify(north=url, each=f'ca_file = "{certificate}"\n')
        link = remote(world)
        assert link.answer(features(), NAMES).constituents == 2
        link.close()
        world.specify(north=url)
        link = remote(world)
        with pytest.raises(Invalid, match="certificate is not trusted"):
            link.standing()
        link.close()
        client = Client(url.replace("https", "http"), "t", attempts=1)
        with client, pytest.raises(Unavailable, match="does not answer"):
            client.status()


def test_ways_that_can_be_overheard_are_refused(world: Served) -> None:
    """Plain HTTP to another machine takes a word of the operator's; to this one it does not."""
    world.specify(north="http://site.example:8000")
    with pytest.raises(Invalid, match="the connection to the site is not encrypted.*site=north"):
        connect_sites(world.site_folders.config)
    world.specify(north="http://site.example:8000", each="insecure = true")
    with connect_sites(world.site_folders.config) as federation:
        assert federation.link("north").name == "north"
    world.specify(each='ca_file = "nothing.pem"')
    with pytest.raises(Invalid, match="certificates that ca_file names cannot be read"):
        connect_sites(world.site_folders.config)
    world.specify(north="https://user:pw@host")
    with pytest.raises(Invalid, match="not the address of an HTTP API"):
        connect_sites(world.site_folders.config)


@pytest.mark.parametrize("line", ['ca_file = "a.pem"', "insecure = true", 'url = "http://127.0.0.1:1"'])
def test_words_about_a_way_that_is_not_there(site_folders: SiteFolders, line: str) -> None:
    """Settings about a missing url, and a url without a token, are errors."""
    site_folders.specify(each=line)
    with pytest.raises(Invalid, match="url"):
        read_sites(site_folders.config)
