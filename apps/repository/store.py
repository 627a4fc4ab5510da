"""Where a repository's files lie: what publishing asks of a place, and the local folder.

Three things carry the whole safety of publishing, and every store gives them:

- `create` writes a file whole, and fails if it is there: who creates ``N.snapshot.json`` has won;
- `replace` swaps one file for another at once;
- what either has returned from stays, and is seen by everybody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.storage import PARTIAL, fsync, replacing

LOCK = "publish.lock"
#: What `os.link` says on file systems without hard links.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Store(Protocol):
    """A place for files, named by paths such as ``metadata/timestamp.json``."""

    @property
    def name(self) -> str:
        """What people call it: a path or a URL."""
        ...

    @property
    def locks(self) -> bool:
        """Whether `exclusive` keeps other publishers out; if not, they are detected."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a context in which nobody else publishes, if the place can promise that."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        OSError
            If it cannot be read.
        """
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file that is not there yet, whole or not at all.

        Raises
        ------
        FileExistsError
            If it is there.
        OSError
            If it cannot be written.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all, over what is there; raises `OSError`."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is no error."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, sorted; none if there is no folder."""
        ...


class FolderStore:
    """A folder. Atomic by a temporary name, fsync and link or rename; publishers take turns.

    The lock is flock(2) on ``publish.lock`` and goes with the process that holds it. A shared file
    system that ignores flock still cannot be corrupted, since `create` is exclusive there too.

    Parameters
    ----------
    folder : Path
        Made by the first write.
    """

    locks = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self._folder)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for other publishers on this folder; see `Store.exclusive`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for left in self._folder.rglob(f".*{PARTIAL}"):
                left.unlink(missing_ok=True)  # of a publisher that was killed
            yield

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        return (self._folder / path).read_bytes()

    def create(self, path: str, data: bytes) -> None:
        """Link a whole temporary file to the name, which fails if it is taken."""
        final = self._folder / path
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            partial.write_bytes(data)
            fsync(partial)
            failpoint("store.write")
            _link(partial, final)
            fsync(final.parent)
        finally:
            partial.unlink(missing_ok=True)

    def replace(self, path: str, data: bytes) -> None:
        """See `Store.replace`."""
        with replacing(self._folder / path) as partial:
            partial.write_bytes(data)
            failpoint("store.write")

    def delete(self, path: str) -> None:
        """See `Store.delete`."""
        (self._folder / path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """See `Store.names`."""
        found = (self._folder / folder).rglob("*")
        return sorted(p.relative_to(self._folder).as_posix() for p in found if p.is_file())


def _link(partial: Path, final: Path) -> None:
    try:
        os.link(partial, final)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if final.exists():  # without hard links it is the lock that keeps this from being a race
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        partial.replace(final)
