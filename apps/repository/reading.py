"""A repository's index for those who have no keys: verified from the repository's own first root.

That proves that the files belong together, not who signed them; devices are told which root to
trust when they are installed.
"""

from __future__ import annotations

from tuf.api.metadata import Metadata, Targets

from apps.errors import PublishError
from apps.repository import chain
from apps.repository.store import Store
from edge_agent.contracts.release import Release
from edge_agent.contracts.repository import Index, index_path


def names(targets: Metadata[Targets] | None) -> list[str]:
    """Return the models that a repository has releases of."""
    paths = targets.signed.targets if targets else {}
    found = (path.rpartition("/")[0] for path in paths)
    return sorted({name for name in found if name and index_path(name) in paths})


def open_index(store: Store, name: str | None = None, *, anchor: bytes | None = None) -> Index:
    """Return a model's index.

    Parameters
    ----------
    store : Store
    name : str, optional
        Of the model; needed only where there are several.
    anchor : bytes, optional
        The first root to trust; by default the one that is there.

    Raises
    ------
    PublishError
        If there are several models and none is named, or none of that name.
    RepositoryDamaged
        If something is missing or not signed as it must be.
    OSError
        If a file cannot be read.
    """
    state = chain.load(store, anchor)
    known = names(state.targets)
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        there = ", ".join(known) or "none"
        msg = f"{store.name}: name the model; models with releases: {there}"
        raise PublishError(msg, name=name)
    return chain.read_index(store, state.targets, str(name))


def read_release(store: Store, index: Index, version: int) -> Release:
    """Return a release's manifest, verified; raises as `open_index`."""
    ref = index.release(version)
    if ref is None:
        known = ", ".join(str(r.version) for r in index.releases) or "none"
        msg = f"version {version} is not published; published: {known}"
        raise PublishError(msg, version=version)
    return Release.model_validate_json(chain.read_target(store, ref.manifest))
