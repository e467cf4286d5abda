"""Checks within seconds whether the Ray cluster that settings name answers and accepts this process's token.

``ray.init`` itself tries for minutes, and reports a wrong token as a cluster that cannot be reached.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled: its types are in no file
from ray.exceptions import AuthenticationError, RayError

from cluster.runtime.head import is_reachable
from storage.errors import Invalid, Unavailable

_TOKEN, _TOKEN_PATH, _MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
_DEFAULT_FILE = "~/.ray/auth_token"

logging.getLogger("ray._private.services").setLevel(logging.ERROR)  # as ``join_ray`` asks of ``ray.init``

_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_cluster(address: str) -> str:
    """Return host and port of the cluster that ``address`` names, once it has accepted this process's token.

    Raises ``Unavailable`` when no cluster answers there, ``Invalid`` when it refuses the token or the token is missing.
    """
    try:
        found: str = canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        why = "none runs on this machine" if address == "auto" else "it is not an address"
        raise no_answer(address, why) from error
    if not is_reachable(found):
        raise no_answer(address, f"nothing listens at {found}")
    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one the next call would end the process
        GcsClient(address=found)
    except (AuthenticationError, FileNotFoundError) as error:
        raise _refused(found) from error
    except RayError as error:
        raise no_answer(address, f"{type(error).__name__} at {found}") from error
    return found


def no_answer(address: str, why: str) -> Unavailable:
    """Return the error for a cluster that cannot be joined."""
    return Unavailable(
        f"the Ray cluster does not answer: {why}",
        "Check [cluster] address, and that cluster with 'ray status'. If its head is gone, start it again. Without a"
        ' cluster, write "local".',
        address=address,
    )


def make_token() -> None:
    """Make a token for this user's own clusters, readable by no other user, unless there is one.

    Ray itself makes one for ``ray.init`` that every user of the machine can read, and does not make one for
    ``ray start``.
    """
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH) or token_file() is not None:
        return
    path = Path(_DEFAULT_FILE).expanduser()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as file:  # has mode 0600
        file.write(secrets.token_hex(32))
        file.flush()
        with suppress(FileExistsError):  # another process has made one at this moment
            path.hardlink_to(file.name)


def token_file() -> Path | None:
    """Return the file from which Ray reads this process's token; None if the token is not in a file."""
    if os.environ.get(_TOKEN):
        return None
    path = Path(os.environ.get(_TOKEN_PATH) or _DEFAULT_FILE).expanduser()
    return path if path.exists() else None


def check_token_file() -> str:
    """Return a description of where this process's token comes from. Raises ``Invalid`` if others may read its file."""
    path = token_file()
    if path is None:
        return _token_in_words()
    if rights := stat.S_IMODE(path.stat().st_mode) & _FOR_OTHERS:
        raise Invalid(
            f"others than its owner have rights to the file of Ray's token (mode {rights:03o} of theirs)",
            f"Run 'chmod 600 {path}'. If others may have read it, replace the token: docs/operations.md says how.",
            file=str(path),
        )
    return f"{_token_in_words()}, which is its owner's alone"


def _refused(address: str) -> Invalid:
    return Invalid(
        f"the Ray cluster refuses this process's token: it has {_token_in_words()}",
        f"Put the token of the cluster's head into {_DEFAULT_FILE}, mode 0600, or into the file that {_TOKEN_PATH}"
        f" names, or into {_TOKEN}. Nothing else is wrong with the cluster.",
        address=address,
    )


def _token_in_words() -> str:
    mode = os.environ.get(_MODE, "")
    if mode != "token":
        return f"none, for {_MODE} is {mode!r} and not 'token'"
    if os.environ.get(_TOKEN):
        return f"the one in the environment variable {_TOKEN}"
    path = token_file()
    return f"the one in {path}" if path else "none"
