"""The registrar: issues receipts, finds them, and checks them and their log.

    receipts/envelopes/<sha256 of the request id>    the signed statement: fixed at the first attempt
    receipts/bundles/<sha256 of the request id>      the receipt to hand out: fixed once the statement is in the log
    log/origin                                       the log's name, drawn once

Every step creates an object once or finds the one that was created. So any process may issue again after any crash, and
ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from itertools import takewhile
from typing import TypeVar

from coordinator.ports import Clock
from coordinator.receipts.bundles import (
    CHECKPOINTS,
    RECEIPTS,
    ReceiptBundle,
    bundle_from_bytes,
    read_statement,
    verify_bundle,
)
from coordinator.receipts.evidence import Evidence, statement
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, PAYLOAD_TYPE
from storage.digests import sha256
from storage.each import Each, in_turn
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError
from storage.objects import NewName, ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.transparency.check import LogCheck, LogGrowth, check_log, log_growth, read_leaf, read_leaves
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.envelope import envelope_payload, open_envelope, sign_envelope
from storage.transparency.key_rotation import KeyStatement, endorsements, key_text, rotate, statements
from storage.transparency.keys import KeyFolder, PublicKey, SigningKey, published_keys
from storage.transparency.log import ENTRIES, Inclusion, LogLayout, TransparencyLog
from storage.transparency.merkle import EMPTY_ROOT
from storage.transparency.witness import Witness

_ORIGIN_KEY = object_key("log/origin")
_BUNDLES = "receipts/bundles/"
_ENVELOPES = "receipts/envelopes/"
_PURPOSES = (RECEIPTS, CHECKPOINTS)

_Opened = TypeVar("_Opened")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsCheck:
    """The result of a check of all receipts."""

    checked: int
    """Number of receipts that were checked."""
    broken: tuple[str, ...]
    """Everything that is wrong, by name; empty when all is well."""


class Registrar:
    """The receipts of one store. Creating a registrar reads and writes nothing; any number may work at once."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        new_name: NewName,
        private_keys: ObjectStore | None = None,
        *,
        witness: Witness | None = None,
        tell: Callable[[str], None] = lambda _: None,
        each: Each = in_turn,
    ) -> None:
        """``private_keys``: where the private signing keys are kept; None: in ``store``.

        ``witness`` gets every checkpoint; if it cannot be reached or keeps another one, ``tell`` reports that, and the
        work goes on. ``each`` reads and writes objects that do not depend on each other; entries of the log do.
        """
        self._store = store
        self._witness = witness
        self._tell = tell
        self._each = each
        self._clock = clock
        self._new_name = new_name
        self.keys = KeyFolder(store, private_keys or store)
        self._log: TransparencyLog | None = None
        self._known: dict[str, tuple[PublicKey, ...]] = {}

    def issue(self, evidence: Evidence) -> ReceiptBundle:
        """Return the receipt for this erasure, in the log and durable; a repetition returns the same receipt.

        Raises as ``issue_all`` does.
        """
        return self.issue_all([evidence])[0]

    def issue_all(self, evidence: Sequence[Evidence]) -> tuple[ReceiptBundle, ...]:
        """Return receipts for requests that ended together: one checkpoint covers them all.

        1. Sign the statement, and store it under the request's name.
        2. Append it to the log, which signs its checkpoint.
        3. Store the bundle.

        Raises:
            Conflict: a receipt of this request id states the erasure of something else; not if nothing was found.
            Corrupt: the log or a receipt is damaged, or a statement was not signed by this system.
            Unavailable: the private keys are not in their place.
        """
        # Durable: the request becomes complete because of this receipt.
        found = self._each(partial(self._find, durable=True), [each.request_id for each in evidence])
        for each, bundle in zip(evidence, found, strict=True):
            if bundle is not None:
                _check_same(each, bundle.envelope)
        missing = [each for each, bundle in zip(evidence, found, strict=True) if bundle is None]
        issued = iter(self._issue_new(missing) if missing else ())
        return tuple(bundle or next(issued) for bundle in found)

    def find(self, request_id: str) -> ReceiptBundle:
        """Return the receipt of this request.

        Raises ``ObjectMissing`` when it does not exist, ``Corrupt`` when it is damaged.
        """
        found = self._find(request_id)
        if found is None:
            raise ObjectMissing(
                "there is no receipt for this request",
                "Wait until 'sisa status' says that the request is complete: its receipt is issued then.",
                request=request_id,
            )
        return found

    def public_keys(self) -> tuple[PublicKey, ...]:
        """Return all public keys of receipts and checkpoints, present and past. Raises ``Corrupt``."""
        return (*published_keys(self._store, RECEIPTS), *published_keys(self._store, CHECKPOINTS))

    def published(self) -> str:
        """Return all public keys as ``sisa keys --export`` writes them, each below its endorsement.

        No private key is read. Raises ``ObjectMissing`` when there are no keys yet.
        """
        signed = {key: each for purpose in _PURPOSES for key, each in endorsements(self._store, purpose).items()}
        found = self.public_keys()
        if not found:
            raise ObjectMissing("there are no signing keys yet", "Wait for the first receipt: they are made with it.")
        return "".join(key_text(key, signed.get(key)) for key in found)

    def growth(self, earlier: int = 0) -> LogGrowth:
        """Return the log's newest checkpoint, and the proof that it continues its first ``earlier`` entries.

        Raises ``ObjectMissing`` before the first checkpoint, and as ``storage.transparency.check.log_growth`` does.
        """
        layout = self._layout()
        found = layout and log_growth(self._store, layout, published_keys(self._store, CHECKPOINTS), earlier)
        if not found:
            raise ObjectMissing(
                "the receipts' log has no checkpoint yet", "Wait for the first receipt: it is made with it."
            )
        return found

    def key_statements(self) -> tuple[KeyStatement, ...]:
        """Return what is known about all published keys, those that sign first. Raises ``Corrupt``."""
        return statements(self.keys, _PURPOSES)

    def rotate_keys(self) -> tuple[KeyStatement, ...]:
        """Replace the keys of receipts and checkpoints, destroy the old private keys, and describe all keys.

        After a crash, call it again to continue. Everything that the old keys signed stays verifiable. Raises as
        ``storage.transparency.key_rotation.rotate`` does.
        """
        rotate(self.keys, _PURPOSES, self._clock.now().isoformat(timespec="milliseconds"))
        return self.key_statements()

    def witnessed(self) -> str | None:
        """Return the newest checkpoint that the witness keeps; None: no checkpoint, or no witness.

        Raises the errors of the witness's store.
        """
        layout = self._layout() if self._witness else None
        return self._witness.newest(layout.origin) if self._witness and layout else None

    def check_log(self, old: str | None = None) -> LogCheck:
        """Recompute the log and compare it with the earlier checkpoint ``old``; without one, with the witness's."""
        if old is None:
            old = self._witnessed()
        try:
            layout = self._layout()
            keys = published_keys(self._store, CHECKPOINTS)
        except Corrupt as error:
            return LogCheck(entries=0, root=EMPTY_ROOT.hex(), problems=(f"{error.message}",))
        if layout is None:
            problems = ["there is no log: its name is missing"] if old or self._has_receipts() else []
            return LogCheck(entries=0, root=EMPTY_ROOT.hex(), problems=tuple(problems))
        return check_log(self._store, layout, keys, old)

    def check_all(self, expected: Iterable[str] = ()) -> ReceiptsCheck:
        """Check every receipt in the store, also against the log; all ``expected`` request ids must have one."""
        found = self.check_log()
        broken = [f"log: {problem}" for problem in found.problems]
        stored = sorted(info.key for info in self._store.list(_BUNDLES))
        begun = sorted(info.key for info in self._store.list(_ENVELOPES))
        try:
            keys, layout = self.public_keys(), self._layout()
        except Corrupt as error:
            return ReceiptsCheck(checked=0, broken=(*broken, error.message))
        for key in stored:
            broken += [f"{key}: {failure}" for failure in self._failures(key, keys)]
        finished = {key.removeprefix(_BUNDLES) for key in stored}
        broken += [f"{key}: it was not finished" for key in begun if key.removeprefix(_ENVELOPES) not in finished]
        if layout is not None and not found.problems:
            broken += self._without_receipt(layout)
        without = [request_id for request_id in expected if not self._holds(_bundle_key(request_id))]
        broken += [f"request {request_id}: it has no receipt" for request_id in without]
        return ReceiptsCheck(checked=len(stored), broken=tuple(broken))

    def _issue_new(self, evidence: Sequence[Evidence]) -> list[ReceiptBundle]:
        """Do steps 1 to 3."""
        signer = cache(lambda: self.keys.current(RECEIPTS))
        issued_at = self._issued_at()
        envelopes = self._each(lambda each: self._envelope(each, signer, issued_at), evidence)
        for each, envelope in zip(evidence, envelopes, strict=True):
            _check_same(each, envelope)
        log = self._opened_log()
        inclusions = [log.prove(index) for index in log.append(envelopes)]
        self._have_witnessed(
            log, [(each.index, envelope) for each, envelope in zip(inclusions, envelopes, strict=True)]
        )
        return self._each(self._bundle, list(zip(evidence, envelopes, inclusions, strict=True)))

    def _issued_at(self) -> str:
        """Return the present time, or the time of the log's last statement if that is later."""
        now = self._clock.now()
        last = None if self._log is None and self._layout() is None else self._opened_log().last()
        stated = None if last is None else read_statement(envelope_payload(last))["predicate"].get("issued_at")
        before = datetime.fromisoformat(stated) if isinstance(stated, str) else now
        return max(now, before).isoformat(timespec="milliseconds")

    def _envelope(self, evidence: Evidence, signer: Callable[[], SigningKey], issued_at: str) -> bytes:
        """Return the signed statement about this request; the first one is final."""
        key = _envelope_key(evidence.request_id)
        try:
            return self._admitted(self._store.get_durable(key).payload, key)
        except ObjectMissing:
            signed = sign_envelope(statement(evidence, issued_at), PAYLOAD_TYPE, signer())
        return self._admitted(create_or_read(self._store, key, signed), key)

    def _bundle(self, included: tuple[Evidence, bytes, Inclusion]) -> ReceiptBundle:
        evidence, envelope, inclusion = included
        signers = (
            self._by_known(RECEIPTS, lambda keys: open_envelope(envelope, PAYLOAD_TYPE, keys)).key,
            self._by_known(CHECKPOINTS, lambda keys: open_checkpoint(inclusion.checkpoint, keys)).key,
        )
        bundle = ReceiptBundle(
            envelope=envelope,
            index=inclusion.index,
            proof=inclusion.proof,
            checkpoint=inclusion.checkpoint,
            keys=signers,
        )
        return bundle_from_bytes(create_or_read(self._store, _bundle_key(evidence.request_id), bundle.to_bytes()))

    def _find(self, request_id: str, *, durable: bool = False) -> ReceiptBundle | None:
        key = _bundle_key(request_id)
        try:
            bundle = bundle_from_bytes((self._store.get_durable if durable else self._store.get)(key).payload)
        except ObjectMissing:
            return None
        if _request_id(bundle.envelope) != request_id:
            raise Corrupt(
                "the receipt under this request's name is another request's", "See 'sisa log --check'.", key=key
            )
        return bundle

    def _opened_log(self) -> TransparencyLog:
        """Return the log; the current key signs its future checkpoints."""
        if self._log is not None:
            self._log.sign_with(self.keys.current(CHECKPOINTS))
        else:
            name = encode_record({"origin": f"sisa-ray/{self._new_name()}"})
            layout = _layout_from(create_or_read(self._store, _ORIGIN_KEY, name))
            signer = self.keys.current(CHECKPOINTS)
            self._log = TransparencyLog(
                self._store,
                layout,
                signer=signer,
                keys=lambda: published_keys(self._store, CHECKPOINTS),
                admits=self._is_ours,
            )
        return self._log

    def recover(self) -> int:
        """Copy the log's entries that only the witness has back into the log; return their number.

        This does not carry out the requests that they state: until that is done, the state is behind the log. It stops
        at the first entry whose signing key is not published here. Raises the errors of the witness's store.
        """
        if self._witness is None or self._layout() is None:
            return 0
        log = self._opened_log()
        log.last()
        leaves = list(takewhile(self._is_ours, self._witness.entries(log.newest[0], log.size)))
        for leaf in leaves:
            create_or_read(self._store, _envelope_key(_request_id(leaf)), leaf)
        log.append(leaves)
        return len(leaves)

    def unwitnessed(self) -> int:
        """Return how many entries the witness's newest checkpoint is ahead of the log here."""
        if self._witness is None or self._layout() is None:
            return 0
        log = self._opened_log()
        log.last()
        return max(0, self._witness.size(log.newest[0]) - log.size)

    def _have_witnessed(self, log: TransparencyLog, entries: Sequence[tuple[int, bytes]]) -> None:
        try:
            if self._witness is not None:
                origin, size, note = log.newest
                self._witness.keep(origin, size, note)  # first: a rewritten log must not leave entries there
                self._each(lambda each: self._keep_entry(origin, *each), entries)
                number = min(number for number, _ in entries) - 1
                while number >= 0 and self._keep_entry(origin, number):  # entries that are older than the witness
                    number -= 1
        except SisaError as error:  # the receipts are in the log regardless of the witness
            self._tell(f"the witness did not take the log's checkpoint: {error.message}")

    def _keep_entry(self, origin: str, number: int, leaf: bytes | None = None) -> bool:
        """Send an entry to the witness; return whether it is new there."""
        assert self._witness is not None
        if leaf is None:
            leaf = read_leaf(self._store, number)
        return leaf is not None and self._witness.keep_entry(origin, number, leaf)

    def _witnessed(self) -> str | None:
        try:
            return self.witnessed()
        except SisaError as error:
            self._tell(f"the log was not compared with the witness: {error.message}")
            return None

    def _layout(self) -> LogLayout | None:
        try:
            return _layout_from(self._store.get(_ORIGIN_KEY).payload)
        except ObjectMissing:
            return None

    def _is_ours(self, envelope: bytes) -> bool:
        """Return whether a receipts key signed the leaf: only then may a checkpoint cover it."""
        try:
            read_statement(self._by_known(RECEIPTS, lambda keys: open_envelope(envelope, PAYLOAD_TYPE, keys)).payload)
        except Corrupt:
            return False
        return True

    def _by_known(self, purpose: str, opened: Callable[[Sequence[PublicKey]], _Opened]) -> _Opened:
        """Return ``opened(keys)`` for the keys read before; if that fails, for the keys published now."""
        try:
            return opened(self._known.get(purpose, ()))
        except Corrupt:
            self._known[purpose] = published_keys(self._store, purpose)
            return opened(self._known[purpose])

    def _admitted(self, envelope: bytes, key: ObjectKey) -> bytes:
        if not self._is_ours(envelope):
            raise Corrupt(
                "a stored statement was not signed by us, or was altered",
                "Find out who can write to the store.",
                key=key,
            )
        return envelope

    def _failures(self, key: ObjectKey, keys: Sequence[PublicKey]) -> Iterator[str]:
        """Yield the problems of one stored bundle."""
        try:
            bundle = bundle_from_bytes(self._store.get(key).payload)
            check = verify_bundle(bundle, keys)
        except (Corrupt, Invalid) as error:
            yield error.fact
            return
        yield from check.failures
        if check.request_id is not None and key != _bundle_key(check.request_id):
            yield "it is the receipt of another request than its name says"
        checkpoint = LogLayout(origin=check.origin).checkpoint(check.log_size)
        if check.origin and not self._holds(checkpoint, bundle.checkpoint):
            yield f"its checkpoint of size {check.log_size} is not the log's"
        if not self._holds(object_key(f"{_ENVELOPES}{key.removeprefix(_BUNDLES)}"), bundle.envelope.decode("ascii")):
            yield "the statement that was fixed for it is missing or another one"

    def _without_receipt(self, layout: LogLayout) -> Iterator[str]:
        """Yield the entries without a receipt: a crash may leave one, until its receipt is issued again."""
        for number, leaf in read_leaves(self._store, layout):
            request_id = _request_id(leaf)
            try:
                bundle = bundle_from_bytes(self._store.get(_bundle_key(request_id)).payload)
            except ObjectMissing:
                yield f"entry {number}: its receipt is missing"
                continue
            except (Corrupt, Invalid):
                continue  # already reported
            if (bundle.index, bundle.envelope) != (number, leaf):
                yield f"entry {number}: the receipt of its request is another one"

    def _holds(self, key: ObjectKey, text: str | None = None) -> bool:
        """Return whether the store has the object, and whether it holds ``text``, if that is given."""
        try:
            payload = self._store.get(key).payload
        except ObjectMissing:
            return False
        return text is None or payload == text.encode("utf-8")

    def _has_receipts(self) -> bool:
        return any(self._store.list(_BUNDLES)) or any(self._store.list(ENTRIES))


def _check_same(evidence: Evidence, envelope: bytes) -> None:
    stated = read_statement(envelope_payload(envelope))["predicate"]["request"]
    # A request that finds nothing is identified only by its id: its digest contains a salt, and each submission draws
    # a new one. If the state was set back and the request is submitted again, the statement in the log stays valid.
    is_known = evidence.predicate_type == NOTHING_FOUND_TYPE or stated["digest"] == evidence.request_digest
    if stated["id"] != evidence.request_id or not is_known:
        raise Conflict(
            "a receipt of this request id states the erasure of something else",
            "Find out which of the two requests is meant.",
            request=evidence.request_id,
        )


def _request_id(envelope: bytes) -> str:
    return str(read_statement(envelope_payload(envelope))["predicate"]["request"]["id"])


def _layout_from(payload: bytes) -> LogLayout:
    return LogLayout(origin=str(decode_record(payload, _ORIGIN_KEY, frozenset({"origin"}))["origin"]))


def _envelope_key(request_id: str) -> ObjectKey:
    return object_key(f"{_ENVELOPES}{_name(request_id)}")


def _bundle_key(request_id: str) -> ObjectKey:
    return object_key(f"{_BUNDLES}{_name(request_id)}")


def _name(request_id: str) -> str:
    """Return a key segment for a request id that does not reveal the id."""
    return sha256(request_id.encode("utf-8", "surrogatepass"))
