"""A site with a cluster of its own, reached over its HTTP API: what travels is what that API gives a federation.

On the way there: features, named as at the site, without id or label, and names of people to be erased. On the way
back: probabilities, how the site stands, requests, receipts, and checkpoints where weights may leave.

The way is TLS, verified, unless the site is on this very machine: the token opens everything above, and features are
somebody's data. Plain HTTP to elsewhere takes ``insecure = true`` in the site's table, for ways that something else
keeps secret; it is not a default that one slips into.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.client import Client, NotAllowed, RemoteAnswers, brought_up_to
from cluster.config.sites import ListedSite, SitesSettings
from cluster.release import OtherRelease
from cluster.results.federation import ErasureAnswer, SubjectFound, Verification
from cluster.sites.site_server import arranged
from coordinator.sites import SiteAnswer, SiteStanding
from coordinator.status import FederationStatus, RequestStatus
from shards.data.messages import scores_of_table, table_of_features
from storage.errors import Corrupt, Invalid, ObjectMissing, Unavailable

_ATTEMPTS: Final = 8
"""An answer in pieces is asked for again when they are not of one ensemble; so often in a row is no coincidence."""

_PIECE_BYTES: Final = 8 << 20
"""Of features in one request."""

_MOST_BYTES: Final = 1 << 30
"""Of one answer, checkpoints included."""

_MOST_FEATURES: Final = 1 << 24
"""A site that says that its data points have more is not believed: memory would be taken for as many."""

_MOST_TOKEN_BYTES: Final = 1024

_SUBMISSION_SECONDS: Final = 60.0
"""How long a site may take to accept a request: its coordinator may be starting."""

_SEARCH_SECONDS: Final = 60.0
"""How long a site may take to look people up: it searches a slice for each."""

_PATIENCE_SECONDS: Final = 600.0
"""How long a request is followed that is waited for. It is carried out at the site whoever waits."""

_READABLE: Final = 0o027
"""Rights that a token's file gives nobody: others none, its group none to write. A group may read it: so are secrets
mounted into containers."""


class NotLetIn(Unavailable):
    """The site lets this federation in again once somebody has seen to its token.

    To whoever asks the federation it is as if the site were away: nothing that they sent is wrong.
    """


class RemoteSite:
    """One site behind its own HTTP API. May be used from any thread; nothing is asked twice by itself."""

    def __init__(self, site: ListedSite, settings: SitesSettings) -> None:
        """Connects to nothing yet, and reads the token's file when it is first needed.

        Raises ``Invalid`` when the address is none, can be overheard, or ``ca_file`` holds no certificate.
        """
        assert site.settings.url is not None
        self._site = site
        self._url = site.settings.url
        self._trust = _trust(site)
        self._token = ""
        self._timeout_seconds = settings.timeout_seconds
        self._idle: deque[Client] = deque()
        self._is_closed = False
        self._known: SiteStanding | None = None
        """Where the names of the site's features are from."""
        if Client(self._url).can_be_overheard and not site.settings.insecure:
            raise Invalid(
                "the way to the site can be overheard: its url is plain HTTP to another machine",
                "Write https, or say insecure = true where something else, such as a VPN, keeps that way secret.",
                site=self.name,
            )

    @property
    def name(self) -> str:
        """See ``SiteLink.name``."""
        return self._site.name

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``SiteLink.standing``. Raises ``Corrupt`` for what no site can be."""
        with self._client() as client:
            found = client.standing(requests)
        _check_standing(found)
        self._known = found
        return found

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``SiteLink.answer``. Raises ``Corrupt`` for what is no answer to what was asked."""
        known = self._known or self.standing()
        try:
            return self._answer(arranged(features_NF, names, known.features, known.width), known.features)
        except Invalid:
            self._known = None  # its features may have other names by now
            raise

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``SiteLink.checkpoint``."""
        with self._client() as client:
            return client.checkpoint(shard, sha256)

    def train(self) -> FederationStatus:
        """Return the status of a site that is trained. Raises ``Unavailable`` when it is not: that is done there."""
        status = self.status()
        if not status.generation:
            raise Unavailable(
                "the site is not trained yet, and only there it can be",
                f"Its operator runs 'sisa train --site {self.name}' there.",
                site=self.name,
            )
        return status

    def erase(
        self,
        *,
        subjects: Iterable[str | int],
        ids: Iterable[str | int],
        request_id: str,
        held: str,
        wait: bool,
        include_similar: bool = False,
    ) -> ErasureAnswer:
        """See ``SiteLink.erase``; what was accepted and is waited for in vain is returned as it was last seen."""
        named, single = list(subjects), list(ids)
        return self._submitted(
            lambda client: client.erase(
                subjects=named, ids=single, request_id=request_id, held=held, include_similar=include_similar
            ),
            request_id,
            _PATIENCE_SECONDS if wait else 0.0,
        )

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.erase_everyone``."""
        return self._submitted(lambda client: client.erase_everyone(request_id), request_id, _PATIENCE_SECONDS)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``SiteLink.lookup``. Raises ``Unavailable`` when the site's server is too old to be asked."""
        with self._client(_SEARCH_SECONDS) as client:
            try:
                return client.lookup(subjects)
            except ObjectMissing as error:
                raise Unavailable(
                    "the site's server is too old to look people up", "Its operator can upgrade it.", site=self.name
                ) from error

    def request(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.request``."""
        with self._client() as client:
            return client.request(request_id)

    def receipt(self, request_id: str) -> bytes:
        """See ``SiteLink.receipt``."""
        with self._client() as client:
            return client.receipt(request_id)

    def status(self) -> FederationStatus:
        """See ``SiteLink.status``."""
        with self._client() as client:
            return client.status()

    def verify(self) -> Verification:
        """Raise ``Unavailable``: a proof reads all data of a site, and is made where they are."""
        raise Unavailable(
            "the site proves itself there, where its data are, and nowhere else",
            f"Its operator runs 'sisa verify --site {self.name}' there; its receipts can be checked anywhere.",
            site=self.name,
        )

    def close(self) -> None:
        """See ``SiteLink.close``."""
        self._is_closed = True
        self._let_go()

    # ------------------------------------------------------------------------------------------------- inside

    def _let_go(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        for _ in range(_ATTEMPTS):
            parts = [self._answered(piece, names) for piece in self._pieces(features_NF)]
            if len({(part.generation, part.constituents, part.shards) for part in parts}) == 1:
                return SiteAnswer(
                    generation=parts[0].generation,
                    constituents=parts[0].constituents,
                    shards=parts[0].shards,
                    scores_NC=np.concatenate([part.scores_NC for part in parts]),
                )
        raise Unavailable("the site's ensemble changes faster than an answer can be had", "Ask again in a moment.")

    def _answered(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Return the answer to one request, checked to be one."""
        with self._client() as client:
            found = client.predict(table_of_features(features_NF, names))
        _check_facts(found)
        return SiteAnswer(
            generation=found.generation,
            constituents=found.constituents,
            shards=found.shards,
            scores_NC=scores_of_table(found.table, self._site.specification.data.classes, len(features_NF)),
        )

    def _pieces(self, features_NF: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the data points in requests that the site takes; one request for none."""
        serve = self._site.specification.serve
        point_bytes = 4 * features_NF.shape[1]
        # Half of what a body may have: many short columns take more in Arrow than their values.
        points = max(1, min(serve.max_points, min(_PIECE_BYTES, serve.max_body_bytes // 2) // point_bytes))
        for start in range(0, max(1, len(features_NF)), points):
            yield features_NF[start : start + points]

    def _submitted(
        self, submit: Callable[[Client], ErasureAnswer], request_id: str, patience_seconds: float
    ) -> ErasureAnswer:
        """Return a request that the site has accepted, as far as it has come after so long."""
        with self._client(_SUBMISSION_SECONDS) as client:
            try:
                answer = submit(client)
            except Unavailable as error:
                again = f"Then repeat it with the request id {request_id}: if it was accepted, that is the same request"
                raise Unavailable(error.fact, f"{error.remedy} {again}.", **error.context) from error
            seen = [answer.request]
            with suppress(Unavailable):  # a site that is away now has accepted it nevertheless
                seen.extend(client.follow(answer, patience_seconds))
            return brought_up_to(answer, seen[-1], lambda: submit(client))

    @contextmanager
    def _client(self, timeout_seconds: float | None = None) -> Iterator[Client]:
        """Give a connection that nobody else uses; several at once, so that no question waits for another.

        Raises ``NotLetIn`` when the token's file cannot be used, or the site does not let its token do this,
        ``Unavailable`` when its server speaks another version of the API or of the sites' protocol.
        """
        is_ordinary = timeout_seconds is None
        client = self._idle.pop() if is_ordinary and self._idle else self._opened(timeout_seconds)
        try:
            yield client
        except NotAllowed as error:
            self._token = ""  # a new one may lie in the file by now
            self._let_go()
            raise NotLetIn(
                f"the site does not let this federation in: {error.fact}",
                "Its operator makes a token with 'sisa token create --role federate'; put it into the token_file.",
                site=self.name,
                role="federate",
            ) from error
        except OtherRelease as error:
            raise Unavailable(f"the site is away: {error.message}", error.remedy, site=self.name) from error
        finally:
            if is_ordinary and self._token and not self._is_closed:
                self._idle.append(client)
            else:
                client.close()

    def _opened(self, timeout_seconds: float | None) -> Client:
        self._token = self._token or _read_token(self._site)
        return Client(
            self._url,
            self._token,
            timeout_seconds=timeout_seconds or self._timeout_seconds,
            attempts=1,  # who asks several sites decides itself how long one is waited for
            most_bytes=_MOST_BYTES,
            trust=self._trust,
            contract=("api", "sites"),
        )


def _check_standing(standing: SiteStanding) -> None:
    numbers = (standing.position, standing.generation, standing.floor, standing.requests)
    features, shards = len(standing.features), {shard for shard, _ in standing.checkpoints}
    if (
        min(numbers) < 0
        or features not in {1, standing.width}
        or not 1 <= standing.width <= _MOST_FEATURES
        or len(shards) != len(standing.checkpoints)
        or not all(0 <= shard < standing.shards for shard in shards)
    ):
        raise Corrupt("the site's word on how it stands makes no sense", "Look at the site's server; it was not used.")


def _check_facts(found: RemoteAnswers) -> None:
    if found.generation < 1 or not 1 <= found.constituents <= found.shards:
        raise Corrupt(
            "the answer is none: it is of no generation, or of no constituent", "Look at the site's server; not used."
        )


def _trust(site: ListedSite) -> ssl.SSLContext | None:
    if site.settings.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(site.specification.folder / site.settings.ca_file))
    except (OSError, ValueError) as error:
        raise Invalid(
            "the certificates that ca_file names cannot be read",
            "Name a file of PEM certificates that is there.",
            site=site.name,
            file=site.settings.ca_file,
        ) from error


def _read_token(site: ListedSite) -> str:
    """Return the token in the site's token file. Raises ``NotLetIn`` when it is not there, or not only its owner's."""
    assert site.settings.token_file is not None
    path: Path = site.specification.folder / site.settings.token_file
    try:
        with path.open("rb") as file:
            rights = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_TOKEN_BYTES)
    except OSError as error:
        raise NotLetIn(
            f"the site's token cannot be read: {error.strerror}",
            "Write it into token_file, for this user alone.",
            site=site.name,
            file=site.settings.token_file,
        ) from error
    if rights & _READABLE:
        raise NotLetIn(
            "others may read the site's token, or its group write it",
            f"Run 'chmod 600 {site.settings.token_file}', and have a new token made: this one may be known.",
            site=site.name,
        )
    return text.decode("ascii", "replace").strip()
