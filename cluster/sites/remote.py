"""A site with its own cluster, reached over its HTTP API.

To the site go features, named as at the site, without id or label, and names of people to be erased. From the site come
probabilities, its standing, requests, receipts, and checkpoints if weights may leave.

The connection is verified TLS unless the site is on this machine: the token opens everything above, and features are
personal data. Plain HTTP to another machine needs ``insecure = true`` in the site's table, for connections that
something else encrypts; it is never the default. Shape legend: N points, F features, S scores.
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
from coordinator.effects import HoldoutMeasure
from coordinator.sites import SiteAnswer, SiteStanding
from coordinator.status import FederationStatus, RequestStatus
from shards.data.messages import scores_of_table, table_of_encoded, table_of_features
from shards.learner_kinds.guarantees import is_guarantee
from storage.errors import Corrupt, Invalid, ObjectMissing, Unavailable

_ATTEMPTS: Final = 8
"""How often a whole answer is requested again, when its pieces come from different ensembles, before giving up."""

_PIECE_BYTES: Final = 8 << 20
"""Size of the features in one request."""

_MOST_POINTS: Final = 1 << 53
_LARGEST_MEASURE: Final = 1e100
"""Data points are float32: neither a measure nor its square, times their number, gets out of a double."""

_MOST_BYTES: Final = 1 << 30
"""Size of one answer, checkpoints included."""

_MOST_FEATURES: Final = 1 << 24
"""A site that claims more features is refused, because memory would be allocated for them."""

_MOST_TOKEN_BYTES: Final = 1024

_SUBMISSION_SECONDS: Final = 60.0
"""How long a site may take to accept a request: its coordinator may be starting."""

_SEARCH_SECONDS: Final = 60.0
"""How long a site may take to look people up: it searches a slice for each."""

_PATIENCE_SECONDS: Final = 600.0
"""How long to follow a request that the caller waits for. The site carries it out in any case."""

_READABLE: Final = 0o027
"""Permission bits that a token's file must not have: any for others, writing for its group. The group may read it,
because containers mount secrets that way."""


class NotLetIn(Unavailable):
    """The site refuses this federation until its operator replaces the token.

    To callers of the federation the site appears to be away: they are not to blame.
    """


class RemoteSite:
    """One site behind its own HTTP API. May be used from any thread; it does not retry by itself."""

    def __init__(self, site: ListedSite, settings: SitesSettings) -> None:
        """Connect to nothing yet; the token's file is read when it is first needed.

        Raises ``Invalid`` when the address is invalid or unencrypted, or ``ca_file`` holds no certificate.
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
        """The site's last standing, with its features' names."""
        if Client(self._url).can_be_overheard and not site.settings.insecure:
            raise Invalid(
                "the connection to the site is not encrypted: its url is plain HTTP to another machine",
                "Write https, or insecure = true if something else, such as a VPN, encrypts the connection.",
                site=self.name,
            )

    @property
    def name(self) -> str:
        """See ``SiteLink.name``."""
        return self._site.name

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``SiteLink.standing``. Raises ``Corrupt`` for a standing that is impossible."""
        with self._client() as client:
            found = client.standing(requests)
        _check_standing(found, is_encoded=bool(self._site.specification.data.encode))
        self._known = found
        return found

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``SiteLink.answer``. Raises ``Corrupt`` for an answer that does not fit the question."""
        known = self._known or self.standing()
        try:
            data = self._site.specification.data
            return self._answer(
                arranged(features_NF, names, known.features, known.width, data.encoders), known.features
            )
        except Invalid:
            self._known = None  # its features may have other names by now
            raise

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``SiteLink.checkpoint``."""
        with self._client() as client:
            return client.checkpoint(shard, sha256)

    def train(self) -> FederationStatus:
        """Return the status of a trained site. Raises ``Unavailable`` if it is not trained, which only it can do."""
        status = self.status()
        if not status.generation:
            raise Unavailable(
                "the site is not trained yet, and it can only be trained there",
                f"Ask its operator to run 'sisa train --site {self.name}' there.",
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
        """See ``SiteLink.erase``; a request that takes longer than the wait is returned as it was last seen."""
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

    def measure(self) -> HoldoutMeasure:
        """See ``SiteLink.measure``. Raises ``Unavailable`` when the site's server is too old to answer this."""
        with self._client() as client:
            try:
                found = client.measure()
            except ObjectMissing as error:
                raise Unavailable(
                    "the site's server is too old to report measures", "Ask its operator to upgrade it.", site=self.name
                ) from error
        is_possible = 1 <= found.points <= _MOST_POINTS and found.generation >= 1
        if not is_possible or not all(abs(value) <= _LARGEST_MEASURE for value in found.metrics.values()):
            raise Corrupt("the site reports an impossible measure, which was not used", "Check the site's server.")
        return found

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``SiteLink.lookup``. Raises ``Unavailable`` when the site's server is too old to answer this."""
        with self._client(_SEARCH_SECONDS) as client:
            try:
                return client.lookup(subjects)
            except ObjectMissing as error:
                raise Unavailable(
                    "the site's server is too old to look people up", "Ask its operator to upgrade it.", site=self.name
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

    def verify(self, *, everything: bool = False) -> Verification:  # noqa: ARG002  as every link
        """Raise ``Unavailable``: a proof reads all data of a site, and can only be made there."""
        raise Unavailable(
            "the site can only be verified there, where its data are",
            f"Ask its operator to run 'sisa verify --site {self.name}' there. Its receipts can be checked anywhere.",
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
            if all(part.facts == parts[0].facts for part in parts):
                return SiteAnswer(**parts[0].facts, scores_NS=np.concatenate([part.scores_NS for part in parts]))
        raise Unavailable("the site's ensemble changes faster than an answer can be had", "Ask again in a moment.")

    def _answered(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Return the checked answer to one request."""
        with self._client() as client:
            data = self._site.specification.data
            is_encoded = bool(data.encode)
            found = client.predict(
                table_of_encoded(features_NF, data) if is_encoded else table_of_features(features_NF, names)
            )
        _check_facts(found)
        return SiteAnswer(
            **found.facts,
            scores_NS=scores_of_table(found.table, self._site.specification.predicted, len(features_NF)),
        )

    def _pieces(self, features_NF: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the data points in pieces that the site accepts; if there are none, one empty piece."""
        serve = self._site.specification.serve
        point_bytes = 4 * features_NF.shape[1]
        # Half of a body's limit: many short columns take more in Arrow than their values.
        points = max(1, min(serve.max_points, min(_PIECE_BYTES, serve.max_body_bytes // 2) // point_bytes))
        for start in range(0, max(1, len(features_NF)), points):
            yield features_NF[start : start + points]

    def _submitted(
        self, submit: Callable[[Client], ErasureAnswer], request_id: str, patience_seconds: float
    ) -> ErasureAnswer:
        """Return a request that the site has accepted, in its state at the end or after ``patience_seconds``."""
        with self._client(_SUBMISSION_SECONDS) as client:
            try:
                answer = submit(client)
            except Unavailable as error:
                again = f"Then repeat it with the request id {request_id}: if it was accepted, that is the same request"
                raise Unavailable(error.fact, f"{error.remedy} {again}.", **error.context) from error
            seen = [answer.request]
            with suppress(Unavailable):  # the request is accepted, even if the site is away by now
                seen.extend(client.follow(answer, patience_seconds))
            return brought_up_to(answer, seen[-1], lambda: submit(client))

    @contextmanager
    def _client(self, timeout_seconds: float | None = None) -> Iterator[Client]:
        """Yield a connection that no other thread uses, so that no question waits for another.

        Raises ``NotLetIn`` when the token's file cannot be used, or the site does not let its token do this,
        ``Unavailable`` when its server speaks another version of the API or of the sites' protocol.
        """
        is_ordinary = timeout_seconds is None
        client = self._idle.pop() if is_ordinary and self._idle else self._opened(timeout_seconds)
        try:
            yield client
        except NotAllowed as error:
            self._token = ""  # the file may hold a new one by now
            self._let_go()
            raise NotLetIn(
                f"the site does not let this federation in: {error.fact}",
                "Ask its operator for a token ('sisa token create --role federate'), and put it into the token_file.",
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
            attempts=1,  # the caller, which asks several sites, decides how long to wait for one
            most_bytes=_MOST_BYTES,
            trust=self._trust,
            contract=("api", "sites"),
        )


def _check_standing(standing: SiteStanding, *, is_encoded: bool) -> None:
    numbers = (standing.position, standing.generation, standing.floor, standing.requests)
    features, shards = len(standing.features), {shard for shard, _ in standing.checkpoints}
    if (
        min(numbers) < 0
        or (features not in {1, standing.width} and not (is_encoded and 1 <= features <= standing.width))
        or not 1 <= standing.width <= _MOST_FEATURES
        or len(shards) != len(standing.checkpoints)
        or not all(0 <= shard < standing.shards for shard in shards)
    ):
        raise Corrupt("the site reports an impossible standing, which was not used", "Check the site's server.")


def _check_facts(found: RemoteAnswers) -> None:
    if found.generation < 1 or not 1 <= found.constituents <= found.shards:
        raise Corrupt(
            "invalid answer, which was not used: it has no generation or no constituent", "Check the site's server."
        )
    if not is_guarantee(found.guarantee):
        raise Corrupt("invalid answer, which was not used: it has no guarantee", "Check the site's server.")


def _trust(site: ListedSite) -> ssl.SSLContext | None:
    if site.settings.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(site.specification.folder / site.settings.ca_file))
    except (OSError, ValueError) as error:
        raise Invalid(
            "the certificates that ca_file names cannot be read",
            "Name an existing file of PEM certificates.",
            site=site.name,
            file=site.settings.ca_file,
        ) from error


def _read_token(site: ListedSite) -> str:
    """Return the token in the site's token file. Raises ``NotLetIn`` when it is missing or accessible to others."""
    assert site.settings.token_file is not None
    path: Path = site.specification.folder / site.settings.token_file
    try:
        with path.open("rb") as file:
            rights = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_TOKEN_BYTES)
    except OSError as error:
        raise NotLetIn(
            f"the site's token cannot be read: {error.strerror}",
            "Write it into token_file, readable by this user alone.",
            site=site.name,
            file=site.settings.token_file,
        ) from error
    if rights & _READABLE:
        raise NotLetIn(
            "others may read the site's token, or its group write it",
            f"Run 'chmod 600 {site.settings.token_file}', and have the token replaced: others may know this one.",
            site=site.name,
        )
    return text.decode("ascii", "replace").strip()
