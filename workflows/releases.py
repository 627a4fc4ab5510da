"""The campaign's own repository: made when the campaign starts, kept fresh while it runs.

Its keys lie in the run folder, the root's too, encrypted with a passphrase that lies beside them:
enough to try everything out, and no protection against whoever can read the run folder. A
repository that `rbf-repo init` has made there before is used as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from apps.errors import PublishError
from apps.repository import roots, signing
from apps.repository.keys import KEYRING, Keyring, new_passphrase
from apps.repository.repository import Repository
from apps.repository.roots import Policy
from apps.repository.store import FolderStore
from workflows.errors import CampaignError
from workflows.layout import RunFolder

#: A run folder is to be tried out for weeks after its campaign, and nobody is there to sign.
EMBEDDED = Policy(days={"root": 3650, "targets": 365, "snapshot": 365, "timestamp": 30})
#: Longest and shortest time between looks at the dates, s.
LONGEST, SHORTEST = 3600.0, 1.0

log = structlog.get_logger()


def prepare(folder: RunFolder) -> str:
    """Make the run's repository and keys, unless they are there; return what people are told.

    Raises
    ------
    CampaignError
        If they are there and cannot be used, or the run folder cannot be written.
    """
    try:
        return _prepared(folder)
    except (PublishError, OSError) as error:
        msg = f"the run's repository cannot be used: {error}"
        raise CampaignError(msg, repository=str(folder.repository)) from error


def own(folder: RunFolder, clock: Callable[[], datetime] = signing.utc_now) -> Repository:
    """Return the run's repository with the keys that publishing needs."""
    return Repository(FolderStore(folder.repository), Keyring(folder.keys), clock=clock)


class Freshness:
    """Signs the run's timestamp anew before it expires.

    Parameters
    ----------
    folder : RunFolder
    clock : callable
        Wall time, UTC.
    """

    def __init__(self, folder: RunFolder, clock: Callable[[], datetime] = signing.utc_now) -> None:
        self._folder = folder
        self._clock = clock
        self._look_at = time.monotonic()

    def tick(self) -> bool:
        """Look, if it is time to; return whether something was signed.

        A repository that cannot be written now is tried again; a campaign does not end by it.
        """
        if time.monotonic() < self._look_at:
            return False
        try:
            repository = own(self._folder, self._clock)
            with repository.exclusive() as state:
                signed = repository.due(state)
                newest = repository.refresh(state) if signed else state
                left = signing.time_left(newest.timestamp, self._clock())
        except (PublishError, OSError) as error:
            log.warning("the repository's timestamp is not renewed", error=str(error))
            self._look_at = time.monotonic() + SHORTEST
            return False
        self._look_at = time.monotonic() + min(max(left / 4, SHORTEST), LONGEST)
        return signed


def _prepared(folder: RunFolder) -> str:
    if (folder.keys / KEYRING).exists() and not (folder.root_keys / KEYRING).exists():
        with own(folder).exclusive():
            return f"repository: {folder.repository}, keys {folder.keys}, root keys elsewhere"
    roots.init(
        FolderStore(folder.repository),
        folder.keys,
        [folder.root_keys],
        policy=EMBEDDED,
        passphrase=new_passphrase,
    )
    return (
        f"repository: {folder.repository}, signed with keys in {folder.keys.parent}; "
        "a real deployment keeps the root's key elsewhere (rbf-repo init)"
    )
