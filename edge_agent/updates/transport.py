"""How the files of a repository reach the device.

A transport gives a file's bytes from an offset on, within a time limit. It promises nothing about
what they are: length and digest are checked by whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_agent.contracts.errors import Untrusted, UpdateUnavailable

CHUNK_BYTES = 2**18


class Body(NamedTuple):
    """A file on its way."""

    offset: int
    """Where it starts: what was asked for, or 0 if the other end cannot do that."""
    chunks: Iterator[bytes]
    """The rest of the file; ends early if the link breaks cleanly."""


class Transport(Protocol):
    """Gives the files of a repository; used by one thread."""

    def open(
        self, path: str, *, offset: int = 0, seconds: float
    ) -> AbstractContextManager[Body | None]:
        """Open a file for the time of a block.

        Parameters
        ----------
        path : str
            Relative to the repository.
        offset : int
            Bytes to leave out.
        seconds : float, s
            Time within which the block must have ended.

        Returns
        -------
        Body or None
            None if there is no such file.

        Raises
        ------
        UpdateUnavailable
            Here or in the block, if the other end cannot be reached, says no or is too slow.
        Untrusted
            If the path leaves the repository.
        """
        ...

    def close(self) -> None:
        """Make whoever is reading fail, now and later; from any thread."""
        ...


class FolderTransport:
    """A repository in a folder, such as a mounted share or a stick.

    Parameters
    ----------
    folder : Path
        Need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed = False

    @contextmanager
    def open(self, path: str, *, offset: int = 0, seconds: float) -> Iterator[Body | None]:
        """Open a file; see `Transport.open`. The time limit is the file system's own."""
        del seconds
        check_path(path)
        full = self._folder / path
        try:
            if not full.resolve().is_relative_to(self._folder.resolve()):
                msg = f"{path} leads out of the repository"
                raise Untrusted(msg, reason="path", path=path)
            file = full.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            raise _unreadable(full, error) from error
        with file:
            file.seek(offset)
            yield Body(offset, self._chunks(file.read, full))

    def close(self) -> None:
        """End the reading; see `Transport.close`."""
        self._closed = True

    def _chunks(self, read: _Read, path: Path) -> Iterator[bytes]:
        while True:
            if self._closed:
                raise stopped()
            try:
                chunk = read(CHUNK_BYTES)
            except OSError as error:
                raise _unreadable(path, error) from error
            if not chunk:
                return
            yield chunk


class _Read(Protocol):
    def __call__(self, size: int, /) -> bytes: ...


def check_path(path: str) -> None:
    """Raise `Untrusted` if a path could lead out of the repository."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        msg = f"path {path!r} leads out of the repository"
        raise Untrusted(msg, reason="path", path=path)


def stopped() -> UpdateUnavailable:
    """Return the error of a transport that was closed."""
    return UpdateUnavailable("the agent is stopping", reason="stopped")


def _unreadable(path: Path, error: OSError) -> UpdateUnavailable:
    msg = f"{path} cannot be read: {error.strerror or error}"
    return UpdateUnavailable(msg, reason="unreachable")
