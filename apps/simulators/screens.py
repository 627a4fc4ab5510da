"""Loss coefficients of insect screens from what a supplier states: porosity and wire diameter.

``python -m apps.simulators.screens --porosity 0.36 --wire-diameter 0.25e-3`` prints the line for a
site file.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.site import Screen

AIR_VISCOSITY = 1.5e-5
"""Kinematic viscosity of air at 15 degC, m2/s."""


class LossPoint(NamedTuple):
    """One measured loss coefficient of a round-wire screen."""

    porosity: float
    """Open area over whole area."""
    reynolds_wire: float
    """Approach velocity times wire diameter over viscosity."""
    loss_coefficient: float
    """Pressure drop over the dynamic pressure of the approach velocity."""


def read_table(path: Path) -> tuple[LossPoint, ...]:
    """Read ``data/reference/screen_pressure_loss.csv`` (Blevins 1984); raises `OSError`."""
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            LossPoint(*(float(row[name]) for name in LossPoint._fields))
            for row in csv.DictReader(file)
        )


def solidity_factor(porosity: float) -> float:
    """Return (1 - p^2) / p^2, which carries the porosity in Blevins' correlation."""
    return (1.0 - porosity**2) / porosity**2


def fit(
    porosity: float,
    wire_diameter: float,
    table: Sequence[LossPoint],
    viscosity: float = AIR_VISCOSITY,
) -> Screen:
    """Return K(U) = a/U + b of a screen, fitted to a table.

    All rows are fitted at once: K = G(p) (A / Re + B) with G = (1 - p^2) / p^2 (Blevins 1984), A
    and B by least squares on the relative error. Below the table's lowest Reynolds number the a/U
    part extrapolates; it is the creeping-flow limit that permeability models have too (Miguel
    1998), but its size there is not measured.

    Parameters
    ----------
    porosity : float
        Open area over whole area, 0 to 1.
    wire_diameter : float, m
    table : sequence of LossPoint
        At least two Reynolds numbers.
    viscosity : float, m2/s

    Raises
    ------
    InvalidInput
        If the porosity, the diameter or the table cannot be used.
    """
    if not 0 < porosity < 1 or not wire_diameter > 0:
        msg = f"porosity {porosity} must be in 0..1 and wire diameter {wire_diameter} m positive"
        raise InvalidInput(msg, porosity=porosity, wire_diameter=wire_diameter)
    if len({p.reynolds_wire for p in table}) < 2:
        msg = "the loss table needs two Reynolds numbers at least"
        raise InvalidInput(msg)
    shape = np.array([solidity_factor(p.porosity) for p in table])
    inverse = np.array([1.0 / p.reynolds_wire for p in table])
    loss = np.array([p.loss_coefficient for p in table])
    terms = np.stack([shape * inverse, shape], axis=1) / loss[:, None]
    (viscous, inertial), *_ = np.linalg.lstsq(terms, np.ones(len(loss)), rcond=None)
    factor = solidity_factor(porosity)
    return Screen(
        linear=float(factor * viscous * viscosity / wire_diameter),
        constant=float(factor * inertial),
    )


def wire_diameter(threads: tuple[float, float], porosity: float) -> float:
    """Return the wire diameter of a plain weave, m.

    Parameters
    ----------
    threads : pair of float, 1/m
        Threads per length in both directions.
    porosity : float
        (1 - n1 d) (1 - n2 d) for wires of diameter d.
    """
    both, product = sum(threads), threads[0] * threads[1]
    root = both**2 - 4 * product * (1 - porosity)
    return float((both - np.sqrt(root)) / (2 * product))


def _main(
    porosity: Annotated[float, typer.Option(help="Open area over whole area.")],
    wire_diameter: Annotated[float, typer.Option(help="m.")],
    table: Annotated[Path, typer.Option(help="Loss coefficients.")] = Path(
        "data/reference/screen_pressure_loss.csv"
    ),
) -> None:
    """Print a screen for a site file."""
    try:
        screen = fit(porosity, wire_diameter, read_table(table))
    except (OSError, InvalidInput) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"screen = {{ linear = {screen.linear:.3f}, constant = {screen.constant:.3f} }}")


if __name__ == "__main__":
    typer.run(_main)
