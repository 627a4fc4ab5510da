"""Registers our functions with Globus Compute and puts them on an endpoint's allow-list.

Repeatable: what is registered already, with the same source, is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from edge_agent.contracts import storage
from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.model import sha256
from edge_agent.remote import FUNCTIONS, registered_name, source

#: Beside the endpoint's configuration: registered name to identifier and digest of the source.
FILE = "rbf_functions.json"


class Registry(Protocol):
    """What is asked of `globus_compute_sdk.Client`."""

    def register_source_code(self, source: str, function_name: str, description: str) -> str:
        """Register a function; return its identifier."""
        ...

    def get_function(self, function_id: str) -> Any:  # noqa: ANN401 - JSON values
        """Return what is known of a function; raises if there is none."""
        ...


class Known(msgspec.Struct, frozen=True):
    """A registered function."""

    id: str
    """Its identifier."""
    sha256: str
    """Digest of its source."""


class Done(NamedTuple):
    """What a registration did."""

    registered: dict[str, str]
    """Registered name to identifier, for those that are new."""
    kept: dict[str, str]
    """The same for those that were there."""
    allowed: list[str]
    """The endpoint's allow-list."""
    others: int
    """Functions on it that are none of ours."""
    changed: bool
    """Whether the list was written: the endpoint reads it when it starts."""


def register(endpoint: Path, names: Sequence[str], registry: Registry) -> Done:
    """Register functions and allow exactly those of ours on an endpoint.

    Parameters
    ----------
    endpoint : Path
        The endpoint's folder (``~/.globus_compute/NAME``).
    names : sequence of str
        Keys of `edge_agent.remote.FUNCTIONS`.
    registry : Registry
        The service.

    Raises
    ------
    InvalidConfig
        If there is no endpoint in the folder, its files cannot be used, or a name is unknown.
    """
    for name in names:
        if name not in FUNCTIONS:
            msg = f"no function {name!r}; there are {', '.join(FUNCTIONS)}"
            raise InvalidConfig(msg, field="--function")
    config = read_config(endpoint)
    known = read_functions(endpoint)
    registered: dict[str, str] = {}
    kept: dict[str, str] = {}
    wanted: dict[str, Known] = {}
    for name in names:
        text, title = source(name), registered_name(name)
        digest = sha256(text.encode())
        found = known.get(title)
        if found is not None and found.sha256 == digest and _is_there(registry, found.id):
            kept[title] = found.id
        else:
            description = f"Reverse Backfill edge agent: {FUNCTIONS[name].__doc__}"
            identifier = registry.register_source_code(text, title, description)
            found = Known(id=str(identifier), sha256=digest)
            registered[title] = found.id
        wanted[title] = found
    ours = {k.id for k in known.values()}
    before = [str(f) for f in config.get("allowed_functions") or []]
    others = [f for f in before if f not in ours]
    allowed = [k.id for k in wanted.values()] + [f for f in others if f not in kept.values()]
    # What was ours once stays known, or its identifier would pass for somebody else's.
    storage.write_bytes(endpoint / FILE, msgspec.json.encode({**known, **wanted}))
    if allowed != before:
        write_config(endpoint, {**config, "allowed_functions": allowed})
    return Done(registered, kept, allowed, len(others), allowed != before)


def read_functions(endpoint: Path) -> dict[str, Known]:
    """Return what earlier registrations left; raises `InvalidConfig` if it cannot be read."""
    path = endpoint / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Known])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"{path} cannot be read: {error}; remove it to register anew"
        raise InvalidConfig(msg, file=str(path)) from error


def read_config(endpoint: Path) -> dict[str, Any]:
    """Return an endpoint's configuration; raises `InvalidConfig` if there is none."""
    import yaml

    path = endpoint / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path} cannot be read: {error}; first: globus-compute-endpoint configure NAME"
        raise InvalidConfig(msg, file=str(path)) from error
    if not isinstance(found, dict):
        msg = f"{path} holds no settings; first: globus-compute-endpoint configure NAME"
        raise InvalidConfig(msg, file=str(path))
    return found


def write_config(endpoint: Path, config: Mapping[str, Any]) -> None:
    """Write an endpoint's configuration, whole or not at all; for its owner's eyes alone."""
    import yaml

    path = endpoint / "config.yaml"
    with storage.replacing(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")


def _is_there(registry: Registry, identifier: str) -> bool:
    try:
        registry.get_function(identifier)
    except Exception as error:
        if getattr(error, "http_status", None) == 404:
            return False
        raise
    return True
