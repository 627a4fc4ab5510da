"""The inputs of a release, and what callers give of them, as rows: pure.

A caller gives all columns, or those alone that have no default; by name, any that hold these. The
rest is taken from the defaults: the estimated state of the house, and silence of its interior
sensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.features import InputVariable

Inputs = Mapping[str, float | Sequence[float] | np.ndarray] | Sequence[Any] | np.ndarray

_SINGLE = np.dtype(np.float32)


class Columns(NamedTuple):
    """What a release takes."""

    names: tuple[str, ...]
    """Of all columns, in order."""
    defaults: Mapping[str, float] = {}
    """Of the last columns, by name and in order: what is taken where they are left out."""

    @classmethod
    def of(cls, inputs: Sequence[InputVariable]) -> Columns:
        """Return the columns of a manifest, whose defaults come last."""
        # As singles from the start: what is said of a default is what the model is given.
        defaults = {v.name: float(np.float32(v.default)) for v in inputs if v.default is not None}
        return cls(tuple(v.name for v in inputs), defaults)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without a default."""
        return self.names[: len(self.names) - len(self.defaults)]

    @property
    def takes(self) -> str:
        """What may be given, in words."""
        text = f"the release takes {', '.join(self.required)}"
        if self.defaults:
            taken = ", ".join(f"{name} ({value:g})" for name, value in self.defaults.items())
            text += f"; these may be left out: {taken}"
        return text

    def check(self, given: Sequence[str]) -> None:
        """Raise `InvalidInput` unless the names are known and all that are required are there."""
        for name in given:
            if name not in self.names:
                msg = f"unknown input {name!r}; {self.takes}"
                raise InvalidInput(msg, name=name)
        for name in self.required:
            if name not in given:
                msg = f"input {name!r} is missing; {self.takes}"
                raise InvalidInput(msg, name=name)

    def named(self, given: Sequence[str]) -> tuple[str, ...]:
        """Return the names that a caller says its columns have, checked.

        Raises
        ------
        InvalidInput
            As `check`, and if they are not in the release's order.
        """
        self.check(given)
        names = tuple(given)
        if names != tuple(name for name in self.names if name in names):
            msg = f"columns {', '.join(names)} are not in order; {self.takes}"
            raise InvalidInput(msg, name="columns")
        return names

    def completed(self, rows: np.ndarray, given: Sequence[str]) -> np.ndarray:
        """Return rows of the columns given, (batch, given), as rows of all: (batch, n) float32."""
        found = np.empty((len(rows), len(self.names)), np.float32)
        at = {name: i for i, name in enumerate(given)}
        for i, name in enumerate(self.names):
            found[:, i] = rows[:, at[name]] if name in at else self.defaults[name]
        return found

    def told(self, given: Sequence[str]) -> str:
        """Return all columns in order as text, with ``=VALUE`` where a default was taken."""
        return ",".join(
            name if name in given else f"{name}={shortest(self.defaults[name])!r}"
            for name in self.names
        )


def shortest(value: float) -> float:
    """Return the number with the fewest digits that is the same single: 1.4, not 1.39999998."""
    return float(str(np.float32(value)))


def as_rows(
    inputs: Inputs, columns: Columns, max_batch: int, given: Sequence[str] | None = None
) -> np.ndarray:
    """Return inputs as (batch, n) float32, checked and complete.

    Parameters
    ----------
    inputs : mapping or array
        Name to value (or to a column of values); or an array (k,) or (batch, k).
    columns : Columns
    max_batch : int
    given : sequence of str, optional
        Names of an array's columns, if they are neither all nor just those required.

    Raises
    ------
    InvalidInput
        For NaN or infinity, a wrong shape, an unknown or missing name, too large a batch.
    """
    if type(inputs) is np.ndarray and inputs.dtype == _SINGLE and inputs.flags.c_contiguous:
        rows = inputs  # what callers in a hurry send: nothing to convert
    else:
        rows, given = _converted(inputs, columns, given)
    shape, names = rows.shape, columns.names
    if len(shape) == 1:
        rows, shape = rows[None], (1, *shape)
    if given is not None or len(shape) != 2 or shape[1] != len(names) or not shape[0]:
        rows = columns.completed(rows, _given(rows, columns, given))
    if shape[0] > max_batch:
        msg = f"batch of {len(rows)}; at most {max_batch} in one request"
        raise InvalidInput(msg, shape=shape)
    # Singles cannot overflow a sum of doubles: it is finite if and only if all of them are.
    total = sum(rows[0].tolist()) if shape[0] == 1 else float(rows.sum(dtype=np.float64))
    if not math.isfinite(total):
        row, column = np.argwhere(~np.isfinite(rows))[0]
        msg = f"input {names[column]!r} of row {row} is not a finite float32"
        raise InvalidInput(msg, name=names[column], row=int(row))
    return rows


def as_given(
    inputs: Inputs, columns: Columns, max_batch: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return inputs as (batch, k) float32, checked, and the names of their columns.

    For callers who leave the defaults to whoever has the release: theirs may be older.

    Raises
    ------
    InvalidInput
        As `as_rows`.
    """
    if type(inputs) is np.ndarray and inputs.shape[-1:] == (len(columns.names),):
        return as_rows(inputs, columns, max_batch), columns.names
    rows, given = _converted(inputs, columns, None)
    if rows.ndim == 1:
        rows = rows[None]
    names = _given(rows, columns, given)
    return as_rows(rows, Columns(names), max_batch), names


def _given(rows: np.ndarray, columns: Columns, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the columns that rows hold, or raise `InvalidInput`."""
    possible = [columns.names, columns.required] if given is None else [columns.named(given)]
    if rows.ndim == 2 and len(rows):
        for names in possible:
            if rows.shape[1] == len(names):
                return names
    expected = "; or ".join(
        f"(batch, {len(names)}): {', '.join(names)}" for names in dict.fromkeys(possible)
    )
    msg = f"inputs have shape {np.shape(rows)}, expected {expected}"
    raise InvalidInput(msg, shape=rows.shape)


def _converted(
    inputs: Inputs, columns: Columns, given: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[str] | None]:
    """Return inputs as float32 in order, and the names of their columns where they say them."""
    parts: Any = inputs
    if isinstance(inputs, Mapping):
        names = [name for name in columns.names if name in inputs]
        given = None
        if not len(names) == len(columns.names) == len(inputs):
            columns.check(tuple(inputs))
            given = names
        parts = [inputs[name] for name in names]
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            rows = np.asarray(parts, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"inputs are not an array of numbers: {error}"
        raise InvalidInput(msg) from error
    if isinstance(inputs, Mapping):
        rows = rows.T
    return np.ascontiguousarray(rows), given
