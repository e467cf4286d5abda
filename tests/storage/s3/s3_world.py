"""What the tests of the S3 store share: a store behind a proxy, the same store seen directly, and the operations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from storage.errors import ObjectExists, ObjectMissing
from storage.objects import object_key
from storage.s3.client import S3Store
from tests.doubles.stores.s3_servers import plain_client

KEY = object_key("folder/object")
OTHER = object_key("folder/other")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One prefix of a bucket, reached through a proxy and directly."""

    store: S3Store
    """Through the proxy."""
    direct: S3Store
    """Past it: the truth."""

    def payload(self) -> bytes | None:
        """Return what the object really holds."""
        try:
            return self.direct.get(KEY).payload
        except ObjectMissing:
            return None

    def begin_upload(self) -> None:
        """Leave a multipart upload unfinished."""
        client = plain_client(str(self.direct.endpoint))
        client.create_multipart_upload(Bucket=self.direct.bucket, Key=self.direct.full_names.name(OTHER))
        client.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the store, and the one request of it that goes wrong."""

    name: str
    request: tuple[str, str]
    """Method, and a pattern of path and query."""
    run: Callable[[World], object]
    before: Callable[[World], object] = lambda _: None
    done: Callable[[World], bool]
    """Whether the operation has taken effect."""
    undone: Callable[[World], bool]
    """Whether nothing has changed."""


def _create(world: World) -> None:
    world.store.put_if_absent(KEY, b"new content")


def _create_taken(world: World) -> None:
    with suppress(ObjectExists):
        world.store.put_if_absent(KEY, b"new content")
        raise AssertionError("created over an existing object")


def _replace(world: World) -> None:
    world.store.put_if_match(KEY, b"new content", world.direct.get(KEY).tag)


def _create_in_parts(world: World) -> None:
    replace(world.store, multipart_above_bytes=4).put_if_absent(KEY, b"new content")


def _read(world: World) -> None:
    assert world.store.get(KEY).payload == b"old content"


def _list(world: World) -> None:
    assert [info.key for info in world.store.list("folder/")] == [KEY]


def _unfinished(world: World) -> None:
    assert len(list(world.store.unfinished("folder/"))) == 1


def _hold(world: World) -> None:
    with world.store.exclusive("writer", holder="first"):
        pass


def _is_free(world: World) -> bool:
    with world.direct.exclusive("writer", holder="second"):
        return True


def _put_old(world: World) -> object:
    return world.direct.put_if_absent(KEY, b"old content")


def _is_old(world: World) -> bool:
    return world.payload() == b"old content"


def _is_new(world: World) -> bool:
    return world.payload() == b"new content"


def _is_gone(world: World) -> bool:
    return world.payload() is None


def _has_upload(world: World) -> bool:
    return len(list(world.direct.unfinished(""))) == 1


def _has_no_upload(world: World) -> bool:
    return list(world.direct.unfinished("")) == []


OPERATIONS = (
    Operation(name="create", request=("PUT", "object$"), run=_create, done=_is_new, undone=_is_gone),
    Operation(
        name="create a taken key: look",
        request=("HEAD", "object$"),
        before=_put_old,
        run=_create_taken,
        done=_is_old,
        undone=_is_old,
    ),
    Operation(name="replace", request=("PUT", "object$"), before=_put_old, run=_replace, done=_is_new, undone=_is_old),
    Operation(
        name="create in parts: begin", request=("POST", "uploads"), run=_create_in_parts, done=_is_new, undone=_is_gone
    ),
    Operation(
        name="create in parts: part", request=("PUT", "partN"), run=_create_in_parts, done=_is_new, undone=_is_gone
    ),
    Operation(
        name="create in parts: complete",
        request=("POST", "uploadId"),
        run=_create_in_parts,
        done=_is_new,
        undone=_is_gone,
    ),
    Operation(name="read", request=("GET", "object$"), before=_put_old, run=_read, done=_is_old, undone=_is_old),
    Operation(name="list", request=("GET", "list-type"), before=_put_old, run=_list, done=_is_old, undone=_is_old),
    Operation(
        name="delete: versions",
        request=("GET", "[?&]versions"),
        before=_put_old,
        run=lambda world: world.store.delete(KEY),
        done=_is_gone,
        undone=_is_old,
    ),
    Operation(
        name="delete: objects",
        request=("POST", "[?&]delete"),
        before=_put_old,
        run=lambda world: world.store.delete(KEY),
        done=_is_gone,
        undone=_is_old,
    ),
    Operation(
        name="unfinished",
        request=("GET", "[?&]uploads"),
        before=World.begin_upload,
        run=_unfinished,
        done=_has_upload,
        undone=_has_upload,
    ),
    Operation(
        name="remove unfinished: abort",
        request=("DELETE", "uploadId"),
        before=World.begin_upload,
        run=lambda world: world.store.remove_unfinished(""),
        done=_has_no_upload,
        undone=_has_upload,
    ),
    Operation(name="lease: take", request=("PUT", "leases"), run=_hold, done=_is_free, undone=_is_free),
    Operation(name="lease: look", request=("GET", "leases"), run=_hold, done=_is_free, undone=_is_free),
)
