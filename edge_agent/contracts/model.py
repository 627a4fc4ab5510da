"""Base of every contract model, canonical JSON, digests and configuration files."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.contracts.errors import InvalidConfig

M = TypeVar("M", bound="Contract")


class Contract(BaseModel):
    """A frozen model that refuses unknown fields and has a digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def canonical_json(self) -> bytes:
        """Return the model as JSON with sorted keys and no white space."""
        return canonical_json(self.model_dump(mode="json"))

    def content_digest(self) -> str:
        """Return the sha256 of the canonical JSON, in hexadecimal."""
        return sha256(self.canonical_json())

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Raises
        ------
        InvalidConfig
            If the file cannot be read, is not TOML, or a field is wrong; names the field.
        """
        return load_toml(cls, Path(path))


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return `value` as JSON bytes with sorted keys and no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def load_toml(model: type[M], path: Path) -> M:
    """Read and validate a TOML file; see `Contract.from_toml`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise InvalidConfig(msg, file=str(path), field=None) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not valid TOML: {error}"
        raise InvalidConfig(msg, file=str(path), field=None) from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(file)"
        given = "" if isinstance(first["input"], dict | list) else f" (given: {first['input']!r})"
        msg = f"{path}: {field}: {first['msg']}{given}"
        raise InvalidConfig(msg, file=str(path), field=field) from error
