"""The front door of a federation of several sites: the methods of ``cluster.federation``, carried out by sites.

A person is erased only at the site that is named, because each site decides what an id means. A look-up asks the sites
that allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from cluster.config.sites import ListedSite, SitesSettings, SitesSpecification, open_own_store, read_sites
from cluster.results.federation import ErasureAnswer, SubjectFound
from cluster.results.sites import (
    SiteReceipt,
    SitesAnswers,
    SitesEvaluation,
    SitesLookup,
    SitesMeasures,
    SitesStatus,
    SiteStatus,
    SitesVerification,
)
from cluster.runtime.system import SystemClock
from cluster.sites.batch_predict import FileAnswering
from cluster.sites.fan_out import CombinedAnswer, SitesFanOut
from cluster.sites.link import NearSite, SiteLink
from cluster.sites.membership import FeatureOrder, RosterRegister
from cluster.sites.pinned import PinnedSite
from cluster.sites.remote import RemoteSite
from cluster.training.workers import one_ray
from cluster.writer.drafting import new_request_id, texts
from cluster.writer.place import check_place, settle_identity
from coordinator.effects import HoldoutMeasure
from coordinator.ports import Clock, Listener, Remark, ignore_notice
from coordinator.receipts.bundles import ReceiptBundle, bundle_from_bytes, verify_bundle
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.site_receipts import SiteEvidence
from coordinator.sites import SiteRecord, SiteStanding, measured_together
from coordinator.status import FederationStatus, RequestStatus
from storage.errors import Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from storage.objects import NewName, new_name

LinkTo = Callable[[ListedSite, Listener, Clock], SiteLink]
"""How a site is reached."""

AWAY: Final = (Unavailable,)
"""Errors of a site that cannot be reached: work continues at the other sites, and at this one when it is back."""

_Result = TypeVar("_Result")


class SiteFederation:
    """A federation of several sites. Use it as a context manager, or call ``close``."""

    def __init__(
        self,
        specification: SitesSpecification,
        *,
        listener: Listener = ignore_notice,
        clock: Clock | None = None,
        new_name: NewName = new_name,
        link_to: LinkTo | None = None,
    ) -> None:
        """``link_to`` connects to a site; by default as its table says, see ``link_for``."""
        self.specification = specification
        self._listener = listener
        self._clock = clock or SystemClock()
        self._new_name = new_name
        store = open_own_store(specification)
        self._store = store
        self.roster = RosterRegister(store, self._clock)
        self._features = FeatureOrder(store)
        self.registrar = Registrar(store, self._clock, new_name)
        reach = link_to or partial(link_for, specification.settings)
        self._links = {site.name: reach(site, listener, self._clock) for site in specification.sites}
        self._fan_out = SitesFanOut(specification, self._links, self.roster)
        self._answering = FileAnswering(specification, self._fan_out, self.layout, self._remark)

    def __repr__(self) -> str:
        sites = [site.name for site in self.specification.sites]
        return f"SiteFederation({self.specification.name!r}, sites={sites!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the links to the sites."""
        self._fan_out.close()
        for link in self._links.values():
            link.close()

    def check_original(self) -> None:
        """Raise ``Conflict`` when its own store is a copy of another one, to which the sites belong."""
        check_place(self._store)

    def link(self, site: str) -> SiteLink:
        """Return the link to a site. Raises ``Invalid`` when the specification has no site of this name."""
        return self._links[self.specification.site(site).name]

    def launch(self) -> dict[str, str]:
        """Start the coordinator of every member with nodes on this cluster; return a message about each.

        The coordinators outlive this process. Sites with their own API launch theirs themselves.
        """

        def launch(link: PinnedSite) -> str:
            link.launch()
            return "its coordinator is at work"

        return self._at_nodes(launch)

    def stop(self) -> dict[str, str]:
        """End the coordinators that ``launch`` starts; return a message about each."""
        return self._at_nodes(lambda link: "its coordinator is stopped" if link.stop() else "none was launched")

    def _at_nodes(self, act: Callable[[PinnedSite], str]) -> dict[str, str]:
        words = {}
        for site in self._candidates():
            link = self._links[site.name]
            if not isinstance(link, PinnedSite):
                words[site.name] = f"launches and stops its own, with 'sisa --site {site.name} launch' there"
                continue
            try:
                words[site.name] = act(link)
            except AWAY as error:
                words[site.name] = f"waiting for it: {error.fact}"
        return words

    def train(self) -> SitesStatus:
        """Let every site of the specification train and join, without waiting for sites that are away.

        A new site takes part in answers once it is trained; until then it does not count for the quorum.

        A site that was withdrawn and not purged yet is purged now. If a site that can be reached fails to train, its
        error is raised after all the others have trained.
        """
        self.check_original()
        with self._one_ray():
            self._finish_withdrawals()
            failures = self._train_each()
        if self.roster.read().sites:
            settle_identity(self._store)
        if failures:
            raise failures[0]
        return self.status()

    def predict(self, data: object) -> SitesAnswers:
        """Return the federation's answers for a file, folder or glob, or a table in memory, batch by batch.

        A table is a ``pyarrow.Table``, a pandas or polars frame, or any object that supports one of Arrow's protocols.

        Raises ``Unavailable`` when too few sites answer, or the answering sites change while a file is answered.
        """
        return self._answering.predict(data)

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> CombinedAnswer:
        """Return the federation's answer for features with these names, not scaled; see ``SitesFanOut.answer``."""
        return self._fan_out.answer(features_NF, names)

    def layout(self) -> SiteStanding:
        """Return the standing of a member that can be reached, with its features' names in the federation's order.

        That order was recorded when the first site joined: it does not depend on which site can be reached now.
        """
        reasons = []
        for site in self._members():
            try:
                standing = self._links[site.name].standing()
                return replace(standing, features=self._features.ordered(standing.features))
            except SisaError as error:
                reasons.append(f"{site.name}: {error.fact}")
        raise Unavailable(f"no site can be asked: {'; '.join(reasons) or 'none has joined'}", "Run 'sisa train'.")

    def evaluate(self, data: object) -> SitesEvaluation:
        """Return the federation's accuracy on labelled data, overall and per class; for ``data`` see ``predict``."""
        return self._answering.evaluate(data)

    def measures(self) -> SitesMeasures:
        """Return how well each site's own constituents do on its hold-out points, and the same over all such points.

        Only members that allow it (``[[site]] measures``) are asked. If one fails, the others' measures are returned.
        """
        found, absent = dict[str, HoldoutMeasure](), dict[str, str]()
        members = {site.name for site in self._members()}
        for site in self.specification.sites:
            if site.name not in members:
                absent[site.name] = "it is not a member"
            elif not site.settings.measures:
                absent[site.name] = "it keeps its measures to itself: measures is false in its table"
            else:
                link = self._links[site.name]
                try:
                    # One that was set back may hold again what was erased.
                    self.roster.advance(site.name, link.standing)
                    found[site.name] = link.measure()
                except SisaError as error:
                    absent[site.name] = error.fact
        together = measured_together(tuple(found.values()), len(self.specification.target.names))
        return SitesMeasures(sites=found, together=together, absent=absent)

    def erase(
        self,
        site: str,
        *,
        subjects: Iterable[str | int] = (),
        ids: Iterable[str | int] = (),
        request_id: str | None = None,
        held: str = "",
        wait: bool = True,
        include_similar: bool = False,
    ) -> ErasureAnswer:
        """Erase subjects and data points at one site; see ``Federation.erase``.

        Raises ``Unavailable``, and accepts nothing, when the site is away.
        """
        self.check_original()
        self._member(site)
        link = self.link(site)
        self.roster.advance(site, link.standing)  # first, because a site that was set back must not accept anything
        named = request_id or new_request_id(self._new_name)
        answer = link.erase(
            subjects=texts("subjects", subjects),
            ids=texts("ids", ids),
            request_id=named,
            held=held,
            wait=wait,
            include_similar=include_similar,
        )
        with suppress(*AWAY):  # it was accepted, even if the site is away by now: the next answer reads its standing
            self.roster.advance(site, link.standing)  # from now on answers from before the request are refused
        if answer.state == "complete":
            self._linked(site, bundle_from_bytes(link.receipt(named)))
        return answer.naming(subjects, ids)

    def lookup(self, subjects: Iterable[str | int]) -> SitesLookup:
        """Return what each site holds of each subject; see ``Federation.lookup``.

        Only members that allow it (``[[site]] lookup``) are asked. If one fails, the others' answers are still
        returned. Raises ``Invalid`` when no subject is named.
        """
        names = list(texts("subjects", subjects))
        if not names:
            raise Invalid("no subject is named", "Name at least one.")
        found, absent = dict[str, tuple[SubjectFound, ...]](), dict[str, str]()
        members = {site.name for site in self._members()}
        for site in self.specification.sites:
            if site.name not in members:
                absent[site.name] = "it is not a member"
            elif not site.settings.lookup:
                absent[site.name] = "it does not let the federation look people up: lookup is false in its table"
            else:
                try:
                    found[site.name] = self._links[site.name].lookup(names)
                except SisaError as error:
                    absent[site.name] = error.fact
        return SitesLookup(sites=found, absent=absent)

    def withdraw(self, site: str, reason: str) -> SiteStatus:
        """Withdraw a whole site: its constituents leave the ensemble at once, then everything that it holds is erased.

        If the site is away, the second part waits: withdraw again, or train, when it is back. Raises ``Invalid`` for a
        site that is not a member, or without a reason.
        """
        if not reason.strip():
            raise Invalid("a withdrawal needs a reason: it stays on record", "Give one, without personal data.")
        self.check_original()
        self.roster.withdraw(site, reason)
        self._purge(site)
        return next(each for each in self.status().sites if each.site == site)

    def request(self, request_id: str, site: str | None = None) -> tuple[str, RequestStatus]:
        """Return the site that has a request, and the request's status there.

        Raises ``ObjectMissing`` if no site has it.
        """
        return self._wherever(site, request_id, lambda link: link.request(request_id))

    def receipt(self, request_id: str, site: str | None = None) -> SiteReceipt:
        """Return the receipt of the site that carried out a request, and the federation's own, which refers to it.

        Raises ``ObjectMissing`` when no site has a receipt for it, ``Corrupt`` when the site's is not sound.
        """
        where, payload = self._wherever(site, request_id, lambda link: link.receipt(request_id))
        bundle = bundle_from_bytes(payload)
        return SiteReceipt(site=where, at_site=bundle, at_federation=self._linked(where, bundle))

    def status(self) -> SitesStatus:
        """Return the status of the federation and its sites, including those that cannot be reached."""
        roster = self.roster.read()
        known = {site.name: site for site in roster.sites}
        return SitesStatus(
            name=self.specification.name,
            store=self._store.location,
            sites=tuple(self._status_of(site, known.get(site.name)) for site in self.specification.sites),
        )

    def verify(self, *, everything: bool = False) -> SitesVerification:
        """Verify every member at its own site; see ``Federation.verify``."""
        found, absent = {}, {}
        with self._one_ray():
            for site in self._members():
                self._remark(f"site {site.name}")
                try:
                    found[site.name] = self._links[site.name].verify(everything=everything)
                except AWAY as error:
                    absent[site.name] = error.fact
        return SitesVerification(sites=found, absent=absent)

    # -------------------------------------------------------------------------------------------- inside

    def _train_each(self) -> list[SisaError]:
        """Train and join each candidate; return the errors of sites that can be reached."""
        failures: list[SisaError] = []
        candidates = list(self._candidates())
        for site in candidates:
            self._remark(f"site {site.name}")
            try:
                self._links[site.name].train()
                self.roster.join(site.name)  # only now, so that no quorum waits for a site that cannot answer yet
                self.roster.advance(site.name, self._links[site.name].standing)
                own = self._links[site.name].standing().features
                if others := self._features.note(own, decides=site is candidates[0]):
                    self._remark(f"site {site.name} has no part in answers: its features have other names: {others}")
            except AWAY as error:
                self._remark(f"waiting for site {site.name}: {error.fact}")
            except SisaError as error:
                self._remark(f"site {site.name}: {error.message}")
                failures.append(error)
        return failures

    def _one_ray(self) -> AbstractContextManager[None]:
        """Return a context that starts Ray once if all sites would start it on this machine, one after the other."""
        links = list(self._links.values())
        near = [link for link in links if isinstance(link, NearSite)]
        try:
            is_shared = len(links) == len(near) > 1 and all(link.would_start_ray() for link in near)
        except SisaError:
            is_shared = False  # the site's error is reported at its turn
        return one_ray(self.specification.sites[0].specification.cluster) if is_shared else nullcontext()

    def _candidates(self) -> Iterator[ListedSite]:
        """Yield the sites that are members or may become members."""
        roster = self.roster.read()
        for site in self.specification.sites:
            known = roster.find(site.name)
            if known is None or known.is_member:
                yield site

    def _members(self) -> Iterator[ListedSite]:
        roster = self.roster.read()
        for site in self.specification.sites:
            known = roster.find(site.name)
            if known is not None and known.is_member:
                yield site

    def _member(self, site: str) -> SiteRecord:
        return self.roster.read().member(self.specification.site(site).name)

    def _finish_withdrawals(self) -> None:
        for record in self.roster.read().sites:
            if not record.is_member and not record.purged_at and record.name in self._links:
                self._purge(record.name)

    def _purge(self, site: str) -> None:
        """Erase everybody at a withdrawn site, if it can be reached; only then it counts as purged."""
        link = self.link(site)
        try:
            status = link.erase_everyone(f"withdrawal-of-{site}")
        except AWAY as error:
            self._remark(f"site {site} is withdrawn; what it holds is purged when it is back: {error.fact}")
            return
        except Invalid:
            if _holds_data(link.status()):
                raise
            self.roster.note_purged(site)  # it never held anything
            return
        if status.state == "complete":
            self._linked(site, bundle_from_bytes(link.receipt(status.request_id)))
        if status.state in {"complete", "refused"} and not _holds_data(link.status()):
            self.roster.note_purged(site)

    def _linked(self, site: str, bundle: ReceiptBundle) -> ReceiptBundle:
        """Return the federation's receipt for a site's receipt, issuing it the first time."""
        check = verify_bundle(bundle, bundle.keys)
        if not check.is_valid:
            raise Corrupt(f"the site's receipt is not sound: {check.failures[0]}", "See 'sisa log' there.", site=site)
        receipt = self.registrar.issue(SiteEvidence.of(self.specification.name, site, bundle))
        self.registrar.pack()
        return receipt

    def _wherever(self, site: str | None, request_id: str, find: Callable[[SiteLink], _Result]) -> tuple[str, _Result]:
        """Return the first site for which ``find`` succeeds, and its result."""
        away = []
        names = [self.specification.site(site).name] if site is not None else list(self._links)
        for name in names:
            try:
                return name, find(self._links[name])
            except (ObjectMissing, Invalid):
                continue
            except AWAY as error:
                away.append(f"{name} ({error.fact})")
        if away:
            raise Unavailable(
                f"no site that can be asked has it; away: {', '.join(away)}", "Try again when it is back."
            )
        raise ObjectMissing("no site has this", "Check the request's id.", request=request_id)

    def _status_of(self, site: ListedSite, record: SiteRecord | None) -> SiteStatus:
        status, reason = None, record.reason if record else ""
        try:
            status = self._links[site.name].status()
            if record is not None and record.is_member and status.generation:
                self.roster.advance(site.name, self._links[site.name].standing)
        except SisaError as error:  # any error at one site must not hide the others' status
            reason = reason or (error.fact if status else f"waiting for site {site.name}: {error.fact}")
        return SiteStatus(
            site=site.name,
            membership=_membership(record),
            leaves=site.settings.leaves,
            joined_at=record.joined_at if record else "",
            withdrawn_at=record.withdrawn_at if record else "",
            purged_at=record.purged_at if record else "",
            reason=reason,
            status=status,
        )

    def _remark(self, text: str) -> None:
        self._listener(Remark(text=text))


def _membership(record: SiteRecord | None) -> str:
    if record is None:
        return "new"
    if record.is_member:
        return "member"
    return "purged" if record.purged_at else "withdrawn"


def _holds_data(status: FederationStatus) -> bool:
    return bool(status.points or status.held_out)


def link_for(settings: SitesSettings, site: ListedSite, listener: Listener, clock: Clock) -> SiteLink:
    """Return the kind of link to a site that its table calls for.

    That is the site's own API if it has a ``url``, a node of the cluster if it has its own nodes (``cluster.labels``),
    and else its store, which this process can reach.
    """
    if site.settings.url is not None:
        return RemoteSite(site, settings)
    if site.specification.cluster.labels:
        return PinnedSite(site, listener, clock)
    return NearSite(site, listener, clock)


def connect_sites(config: str | Path | SitesSpecification = "sisa.toml", **options: Any) -> SiteFederation:
    """Return the federation of several sites that a specification describes."""
    specification = config if isinstance(config, SitesSpecification) else read_sites(Path(config))
    return SiteFederation(specification, **options)
