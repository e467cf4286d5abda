"""The registrar: issues receipts, finds them (``archive``), has them packed, and checks them and their log.

Every step creates an object once or finds the one that was created. So any process may issue again after any crash, and
ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from itertools import takewhile
from typing import TypeVar

from coordinator.ports import Clock
from coordinator.receipts.archive import BUNDLES, Archive, bundle_key, envelope_key, request_id_in
from coordinator.receipts.bundles import CHECKPOINTS, RECEIPTS, ReceiptBundle, bundle_from_bytes, read_statement
from coordinator.receipts.checking import Checker, ReceiptsCheck, forget_checked, keep_checked, read_checked
from coordinator.receipts.evidence import Evidence, statement
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, PAYLOAD_TYPE
from coordinator.receipts.packing import Packing, create_layout, find_layout
from storage.each import Each, in_turn
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from storage.objects import NewName, ObjectKey, ObjectStore
from storage.registers.create_once import create_or_read
from storage.transparency.check import LogCheck, LogGrowth, SoundPacks, examine_log, log_growth, read_leaf
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.envelope import envelope_payload, open_envelope, sign_envelope
from storage.transparency.key_rotation import KeyStatement, endorsements, key_text, rotate, statements
from storage.transparency.keys import KeyFolder, PublicKey, SigningKey, published_keys
from storage.transparency.layout import ANY_LOG, ENTRIES, PACKS, LogLayout, count_packs
from storage.transparency.log import Inclusion, Overtaken, TransparencyLog
from storage.transparency.merkle import EMPTY_ROOT, MerkleTree
from storage.transparency.witness import Witness

_PURPOSES = (RECEIPTS, CHECKPOINTS)
_ATTEMPTS = 64

_Opened = TypeVar("_Opened")


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
        work continues. ``each`` reads and writes objects that do not depend on each other; entries of the log do.
        """
        self._store = store
        self._witness = witness
        self._tell = tell
        self._each = each
        self._archive = Archive(store, each)
        self._clock = clock
        self._new_name = new_name
        self.keys = KeyFolder(store, private_keys or store)
        self._log: TransparencyLog | None = None
        self._packing = Packing(archive=self._archive, open_log=self._opened_log, fix=self._bundle)
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
        for _ in range(_ATTEMPTS):
            try:
                return self._issue_all(evidence)
            except Overtaken:
                # Objects that were created here since may duplicate those in a pack.
                packed = [each.request_id for each in evidence if self._archive.packed_at(each.request_id) is not None]
                self._archive.take_out(packed)
                self._opened_log().clear_up()
        raise Unavailable("other writers keep packing receipts", "Stop them, or try again.")

    def pack(self) -> None:
        """Put receipts and their log's entries together where a tile is full; to be called when there is time for it.

        The first call in another process finishes what a crash interrupted; later calls cost nothing while there is
        nothing to do. Errors are reported through ``tell``, and the next call tries again: no receipt depends on it.
        """
        try:
            self._packing.pack(self._log)
        except SisaError as error:
            self._tell(f"receipts could not be packed: {error.message}")

    def find(self, request_id: str) -> ReceiptBundle:
        """Return the receipt of this request.

        Raises ``ObjectMissing`` when it does not exist, ``Corrupt`` when it is damaged.
        """
        found = self._archive.find(request_id)
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

    def check_log(self, old: str | None = None, *, everything: bool = True) -> LogCheck:
        """Recompute the log and compare it with the earlier checkpoint ``old``; without one, with the witness's.

        Without ``everything``, packs that ``verify_all`` has found sound are not read again.
        """
        return self._examine_log(old, None if everything else self._checked())[0]

    def check_all(self, expected: Iterable[str] = ()) -> ReceiptsCheck:
        """Check every receipt in the store, against the log as well; ``expected`` request ids must have one."""
        return self._check_since(None, dict.fromkeys(expected))[0]

    def verify_all(
        self,
        expected: Mapping[str, int | None] | None = None,
        *,
        everything: bool = False,
        refuse: Callable[[], None] = lambda: None,
    ) -> ReceiptsCheck:
        """Do what ``check_all`` does, and record which packs were sound: these are read again only with ``everything``.

        If anything is broken the record is deleted, so that everything is read until all is sound. Those that were not
        read are counted in the answer, and the log is proved to continue them. ``expected`` maps request ids to the
        log's entry of their receipt, if that is known. ``refuse`` raises if this process may no longer write; then
        nothing is recorded.
        """
        found, log = self._check_since(None if everything else self._checked(), expected or {})
        refuse()
        try:
            if found.broken:
                forget_checked(self._store)
            elif log.packed:
                keep_checked(self._store, log, self._clock.now().isoformat(timespec="milliseconds"))
        except SisaError as error:
            self._tell(f"it was not recorded which receipts this verification has read: {error.message}")
        return found

    def _check_since(
        self, since: SoundPacks | None, expected: Mapping[str, int | None]
    ) -> tuple[ReceiptsCheck, LogCheck]:
        found, tree = self._examine_log(None, since)
        try:
            keys, layout = self.public_keys(), self._layout()
        except Corrupt as error:
            broken = [f"log: {problem}" for problem in found.problems]
            return ReceiptsCheck(checked=0, broken=(*broken, error.message)), found
        return Checker(archive=self._archive, keys=keys, log=found, tree=tree).check(layout, expected), found

    def _checked(self) -> SoundPacks | None:
        """Return what an earlier check found sound; None: there is no such check to rely on."""
        try:
            layout = self._layout()
            return read_checked(self._store, layout, published_keys(self._store, CHECKPOINTS)) if layout else None
        except (Corrupt, Invalid) as error:
            self._tell(f"everything is read, because the record of the last check is not valid: {error.message}")
            return None

    def _examine_log(self, old: str | None, since: SoundPacks | None) -> tuple[LogCheck, MerkleTree]:
        if old is None:
            old = self._witnessed()
        try:
            layout = self._layout()
            keys = published_keys(self._store, CHECKPOINTS)
        except Corrupt as error:
            return LogCheck(entries=0, root=EMPTY_ROOT.hex(), problems=(f"{error.message}",)), MerkleTree()
        if layout is None:
            problems = ["there is no log: its name is missing"] if old or self._has_receipts() else []
            return LogCheck(entries=0, root=EMPTY_ROOT.hex(), problems=tuple(problems)), MerkleTree()
        return examine_log(self._store, layout, keys, old, since)

    def _issue_all(self, evidence: Sequence[Evidence]) -> tuple[ReceiptBundle, ...]:
        # Before receipts are looked for: one that is not found then is packed later, if ever.
        packed = count_packs(self._store, ANY_LOG)
        # Durable: the request is complete once its receipt is known to be there.
        found = self._each(partial(self._archive.find, durable=True), [each.request_id for each in evidence])
        for each, bundle in zip(evidence, found, strict=True):
            if bundle is not None:
                _check_same(each, bundle.envelope)
        missing = [each for each, bundle in zip(evidence, found, strict=True) if bundle is None]
        issued = iter(self._issue_new(missing, packed) if missing else ())
        return tuple(bundle or next(issued) for bundle in found)

    def _issue_new(self, evidence: Sequence[Evidence], packed: int) -> list[ReceiptBundle]:
        """Do steps 1 to 3."""
        signer = cache(lambda: self.keys.current(RECEIPTS))
        issued_at = self._issued_at()
        envelopes = self._each(lambda each: self._envelope(each, signer, issued_at), evidence)
        for each, envelope in zip(evidence, envelopes, strict=True):
            _check_same(each, envelope)
        log = self._opened_log()
        inclusions = [log.prove(index) for index in log.append(envelopes, packed=packed)]
        self._have_witnessed(
            log, [(each.index, envelope) for each, envelope in zip(inclusions, envelopes, strict=True)]
        )
        bundles = self._each(self._bundle, list(zip(envelopes, inclusions, strict=True)))
        log.refuse_overtaken()
        return bundles

    def _issued_at(self) -> str:
        """Return the current time, or the time of the log's last statement if that is later."""
        now = self._clock.now()
        last = None if self._log is None and self._layout() is None else self._opened_log().last()
        stated = None if last is None else read_statement(envelope_payload(last))["predicate"].get("issued_at")
        before = datetime.fromisoformat(stated) if isinstance(stated, str) else now
        return max(now, before).isoformat(timespec="milliseconds")

    def _envelope(self, evidence: Evidence, signer: Callable[[], SigningKey], issued_at: str) -> bytes:
        """Return the signed statement about this request: the first that was ever made."""
        key = envelope_key(evidence.request_id)
        try:
            return self._admitted(self._store.get_durable(key).payload, key)
        except ObjectMissing:
            signed = sign_envelope(statement(evidence, issued_at), PAYLOAD_TYPE, signer())
        return self._admitted(create_or_read(self._store, key, signed), key)

    def _bundle(self, included: tuple[bytes, Inclusion]) -> ReceiptBundle:
        envelope, inclusion = included
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
        key = bundle_key(request_id_in(envelope))
        return bundle_from_bytes(create_or_read(self._store, key, bundle.to_bytes()))

    def _opened_log(self) -> TransparencyLog:
        """Return the log; the current key signs its future checkpoints."""
        if self._log is not None:
            self._log.sign_with(self.keys.current(CHECKPOINTS))
        else:
            layout = create_layout(self._store, f"sisa-ray/{self._new_name()}")
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
            create_or_read(self._store, envelope_key(request_id_in(leaf)), leaf)
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
        return find_layout(self._store)

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

    def _has_receipts(self) -> bool:
        return any(any(self._store.list(each)) for each in (BUNDLES, ENTRIES, PACKS))


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
