"""The token that a caller from outside must show."""

from __future__ import annotations

import re
from pathlib import Path

from edge_agent.contracts.errors import InvalidConfig


def read_token(path: Path | None) -> str | None:
    """Return the token in a file; none without a file.

    Raises
    ------
    InvalidConfig
        If it cannot be read or is not one line of 16 or more visible characters.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        msg = f"token_file: {path} cannot be read: {error}"
        raise InvalidConfig(msg, field="token_file") from error
    if re.fullmatch(r"[!-~]{16,4096}", token) is None:
        msg = f"token_file: {path} must hold one line of 16 or more visible characters"
        raise InvalidConfig(msg, field="token_file")
    return token
