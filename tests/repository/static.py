"""A static HTTP server over a folder, and the plain TUF client on it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tuf.ngclient import Updater


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def updater(url: str, state: Path, root: bytes, now: datetime | None = None) -> Updater:
    """Return a client with its own memory in `state`, refreshed at a time."""
    (state / "metadata").mkdir(parents=True, exist_ok=True)
    (state / "targets").mkdir(parents=True, exist_ok=True)
    client = Updater(
        metadata_dir=str(state / "metadata"),
        metadata_base_url=f"{url}/metadata/",
        target_dir=str(state / "targets"),
        target_base_url=f"{url}/targets/",
        bootstrap=root,
    )
    if now is not None:
        client._trusted_set.reference_time = now
    client.refresh()
    return client
