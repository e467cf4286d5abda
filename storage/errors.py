"""Errors, by what the caller does next.

Every error of this system is of one of the kinds below. A room may subclass a kind to name the thing, but not to add a
new reaction. The text is: fact, identifiers as ``key=value``, remedy. It never holds a data point's content or a
secret.
"""

from __future__ import annotations

from typing import ClassVar, Self


class SisaError(Exception):
    """Root of all errors raised on purpose.

    ``fact`` says what happened, as a fragment without a full stop. ``remedy`` says what the reader can do, in whole
    sentences. ``context`` holds identifiers. Type, text and fields survive pickling, because Ray sends errors between
    processes that way.
    """

    kind: ClassVar[str] = "failed"

    def __init__(self, fact: str, remedy: str = "", /, **context: str | int) -> None:
        super().__init__(fact, remedy)
        self.fact = fact
        self.remedy = remedy
        self.context = context

    @property
    def message(self) -> str:
        """The fact and its identifiers, without the remedy."""
        names = " ".join(f"{name}={value}" for name, value in self.context.items())
        return f"{self.fact} [{names}]" if names else self.fact

    def advising(self, remedy: str) -> Self:
        """Return this error with another remedy."""
        return type(self)(self.fact, remedy, **self.context)

    def __str__(self) -> str:
        return f"{self.message.removesuffix('.')}. {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.fact, self.remedy, self.context)


def _rebuild(error_type: type[SisaError], fact: str, remedy: str, context: dict[str, str | int]) -> SisaError:
    return error_type(fact, remedy, **context)


class Invalid(SisaError, ValueError):
    """The input is wrong: fix it; retrying cannot help."""

    kind = "invalid"


class NewerFormat(Invalid):
    """A newer release wrote the object: this one cannot read it, and leaves it as it is."""


class Conflict(SisaError):
    """Another writer was first, or the stored object is a different one: re-read, then decide."""

    kind = "conflict"


class Fenced(SisaError):
    """A writer with a higher fencing token is at work: this writer stops for good."""

    kind = "fenced"


class Unavailable(SisaError):
    """Something that is needed cannot be reached at the moment: try again later, a bounded number of times."""

    kind = "unavailable"


class OutcomeUnknown(SisaError):
    """The write may or may not have landed: re-read before anything else."""

    kind = "outcome_unknown"


class Corrupt(SisaError):
    """Stored bytes are not what was written: stop, keep the bytes, alert."""

    kind = "corrupt"


class InvariantBroken(SisaError):
    """A bug of ours: stop and report it."""

    kind = "invariant_broken"


class ObjectMissing(SisaError):
    """No object has this key. The caller knows whether that is expected or a loss."""

    kind = "missing"


class ObjectExists(Conflict):
    """A create-if-absent found the key taken."""


class ObjectChanged(Conflict):
    """A compare-and-swap found another version than the expected one."""


class StoreFull(Unavailable):
    """The store has no room for the payload; nothing was published."""


class WriterBusy(Conflict):
    """Another process, or another part of this one, holds the right to write."""


class JournalTruncated(Conflict):
    """The requested journal entries were pruned: read the manifest that holds their result."""
