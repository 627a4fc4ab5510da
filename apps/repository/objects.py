"""A repository in an object store, through fsspec.

Atomicity is the store's own: an object appears whole when its upload has ended, and a conditional
upload (``If-None-Match: *`` on S3, a generation of 0 on Google Cloud, no overwriting on Azure)
fails if the name is taken. There is no lock; of two publishers at once, one creates the next
snapshot and the other fails with `RepositoryConflict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.errors import PublishError
from apps.repository.store import FolderStore, Store
from edge_agent.contracts.failpoints import failpoint

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: Stores whose uploads are atomic and can be conditional. Others (sftp, http, ...) promise neither.
ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})


class ObjectStore:
    """Objects below a prefix; see the module for where atomicity comes from.

    Parameters
    ----------
    files : fsspec.AbstractFileSystem
    prefix : str
        Bucket and folder.
    name : str
        The URL, for people.
    """

    locks = False

    def __init__(self, files: AbstractFileSystem, prefix: str, name: str) -> None:
        self._files = files
        self._prefix = prefix.rstrip("/")
        self._name = name

    @property
    def name(self) -> str:
        """The URL."""
        return self._name

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep nobody out: see `Store.locks`."""
        self._files.invalidate_cache()
        yield

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        data: bytes = self._files.cat_file(self._at(path))
        return data

    def create(self, path: str, data: bytes) -> None:
        """See `Store.create`."""
        failpoint("store.write")
        self._files.pipe_file(self._at(path), data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        """See `Store.replace`."""
        failpoint("store.write")
        self._files.pipe_file(self._at(path), data, mode="overwrite")

    def delete(self, path: str) -> None:
        """See `Store.delete`."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._at(path))

    def names(self, folder: str) -> list[str]:
        """See `Store.names`."""
        self._files.invalidate_cache()
        try:
            found: list[str] = self._files.find(self._at(folder))
        except FileNotFoundError:
            return []
        return sorted(path.removeprefix(self._prefix).lstrip("/") for path in found)

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"


def open_store(url: str, **options: Any) -> Store:  # noqa: ANN401 - the file system's own
    """Return the store at a path, a ``file://`` URL, or an object store's URL.

    Parameters
    ----------
    url : str
        Such as ``runs/first/repository`` or ``s3://bucket/house``.
    **options
        For the file system; fsspec's own configuration files and environment count too.

    Raises
    ------
    PublishError
        If the store is of a kind whose writes are not atomic, or its package is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return FolderStore(Path(url))
    if scheme in ("file", "local"):
        return FolderStore(Path(rest))
    if scheme not in ATOMIC:
        kinds = ", ".join(sorted(ATOMIC))
        msg = f"{url}: writes to {scheme} are not atomic; use a folder, or one of {kinds}"
        raise PublishError(msg, url=url)
    import fsspec

    try:
        files, prefix = fsspec.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        msg = f"{url}: {error}"
        raise PublishError(msg, url=url) from error
    return ObjectStore(files, prefix, url)
