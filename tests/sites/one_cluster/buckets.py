"""One S3 server, a bucket and an account for each site; an account may use its own bucket and no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.doubles.stores.s3_servers import plain_client, seaweedfs
from tests.doubles.stores.weed_shell import weed_shell

DRIVER: Final = "driver"
"""The account that runs commands for all sites; its bucket is not a store."""


@contextmanager
def site_buckets(folder: Path, accounts: Iterable[str]) -> Iterator[str]:
    """Run a SeaweedFS in which each of the accounts has a bucket of its name; give its endpoint."""
    names = tuple(accounts)
    with seaweedfs(folder) as endpoint:
        client = plain_client(endpoint)
        for name in names:
            client.create_bucket(Bucket=name)
        client.close()
        weed_shell(
            folder,
            *(
                f"s3.configure -user={name} -access_key=id{name} -secret_key={_secret(name)} -buckets={name}"
                " -actions=Read,Write,List,Tagging -apply"
                for name in names
            ),
        )
        yield endpoint


def write_credentials(path: Path, name: str) -> None:
    """Write a credentials file with one profile, of the account's own name."""
    lines = [f"[{name}]", f"aws_access_key_id = id{name}", f"aws_secret_access_key = {_secret(name)}", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _secret(name: str) -> str:
    return f"secret-of-{name}-0123"
