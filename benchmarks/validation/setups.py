"""Flows with known answers as problems of the embedded solver, and a way to run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from apps.simulators.flow.grid import SolverGrid
from apps.simulators.flow.march import CFL, CHECK, RENEW
from apps.simulators.flow.problem import KAPPA, Problem, ScreenPlane
from apps.simulators.flow.stepper import Flow

#: A plane flow has two cells across: the fewest that the solver takes.
_ACROSS = np.array([0.0, 1.0, 2.0])


@dataclass(frozen=True)
class Steady:
    """A flow at its end, in units of the wind; arrays are (z, y, x)."""

    velocity: list[np.ndarray]
    """Normal velocities on the faces."""
    pressure: np.ndarray
    change: float
    """Largest change of a velocity per unit of time at the end."""
    steps: int


@torch.no_grad()
def settle(problem: Problem, tolerance: float, limit: int, cfl: float = CFL) -> list[Steady]:
    """March every case until no velocity changes by more than `tolerance` per unit of time."""
    flow = Flow(problem)
    before, change = None, float("inf")
    for step in range(limit):
        if step % RENEW == 0:
            flow.renew()
            if step % CHECK == 0:
                flow.limit_dt(cfl if step else 0.5 * cfl)
            flow.prepare()
        flow.step()
        if step % 100 == 99:
            now = torch.cat([f.reshape(-1) for f in flow.velocity])
            if before is not None:
                change = float((now - before).abs().max() / (100 * flow.dt.min()))
                if change < tolerance:
                    break
            before = now
    unpack = flow.metrics.unpack
    return [
        Steady([unpack(f, k) for f in flow.velocity], unpack(flow.pressure, k), change, step + 1)
        for k in range(problem.size)
    ]


def uniform_wind(grid: SolverGrid, cases: int, angle: float = 0.0) -> dict[str, np.ndarray]:
    """Return the fields of a problem with a wind of 1 at an angle to x (degrees), no canopy.

    Where the wind is along x the sides y0 and y1 slip.
    """
    shape = grid.cells[::-1]
    sides = np.zeros((2, 4, cases))
    sides[0, 0] = sides[1, 1] = 1.0
    if angle:
        sides[0, 2] = sides[1, 3] = 1.0
    toward = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return {
        "inflow": np.stack([np.full((shape[0], cases), part) for part in toward]),
        "into": sides[0],
        "out": sides[1],
        "canopy": np.zeros(shape),
        "mixing_length": np.zeros(shape),
        "start": np.ones(shape),
    }


def screen(
    grid: SolverGrid,
    index: int,
    mask: np.ndarray,
    linear: Sequence[float],
    constant: Sequence[float],
) -> ScreenPlane:
    """Return a screen normal to x: K = linear / U + constant per case where `mask` (nz, ny)."""
    centres = grid.centres(0)
    scale = 0.5 * mask[:, :, None, None] / (centres[index] - centres[index - 1])
    return ScreenPlane(0, index, scale * np.asarray(linear), scale * np.asarray(constant))


def duct(linear: Sequence[float], constant: Sequence[float], angle: float = 0.0) -> Problem:
    """Return uniform flow through a screen that spans a duct, one case per pair.

    The wind meets the screen at `angle` degrees from its normal.
    """
    nodes = (np.linspace(0, 20, 21), np.linspace(0, 4, 5), np.linspace(0, 4, 5))
    grid = SolverGrid(nodes, ((2, 18), (0, 4), (0, 4)))
    plane = screen(grid, 10, np.ones((4, 4)), linear, constant)
    fields = uniform_wind(grid, len(linear), angle)
    return Problem(grid=grid, screens=(plane,), ground_drag=0.0, **fields)


def pressure_drop(case: Steady) -> float:
    """Return the drop of a duct over the dynamic pressure of its wind."""
    return float(case.pressure[:, :, 1].mean() - case.pressure[:, :, -2].mean()) / 0.5


def cavity(n: int, reynolds: float) -> Problem:
    """Return a unit square in the x-y plane whose wall y = 1 slides along +x at speed 1.

    Every side is one where a given wind enters: with no normal part it is a wall, which moves with
    the part along it.
    """
    lines = np.linspace(0.0, 1.0, n + 1)
    grid = SolverGrid((lines, lines, _ACROSS), ((0, n), (0, n), (0, 2)))
    sides = np.zeros((4, 2, 2, 1))
    sides[3, 0] = 1.0
    return Problem(
        grid=grid,
        inflow=np.zeros((2, 2, 1)),
        at_sides=sides,
        into=np.ones((4, 1)),
        out=np.zeros((4, 1)),
        screens=(),
        canopy=np.zeros((2, n, n)),
        mixing_length=np.zeros((2, n, n)),
        ground_drag=0.0,
        start=np.zeros((2, n, n)),
        viscosity=1.0 / reynolds,
    )


def centrelines(case: Steady) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (places, u at x = 1/2 over y, v at y = 1/2 over x) of a cavity, walls included."""
    u, v = case.velocity[0][0], case.velocity[1][0]
    n = u.shape[0]
    places = np.concatenate([[0.0], (np.arange(n) + 0.5) / n, [1.0]])
    up = np.concatenate([[0.0], u[:, n // 2], [1.0]])
    along = np.concatenate([[0.0], v[n // 2], [0.0]])
    return places, up, along


def free_screen(losses: Sequence[float], viscosity: float) -> tuple[Problem, int, np.ndarray]:
    """Return a screen of half width 1 across the wind in open space, its face and its span."""
    y = _both_ways(1.0, 10, 20.0, 24)
    x = _both_ways(0.3, 3, 24.0, 30)
    grid = SolverGrid((x, y, _ACROSS), ((1, len(x) - 2), (0, len(y) - 1), (0, 2)))
    index = len(x) // 2
    span = np.abs(grid.centres(1)) < 1.0
    plane = screen(grid, index, np.tile(span.astype(float), (2, 1)), [0.0] * len(losses), losses)
    fields = uniform_wind(grid, len(losses))
    problem = Problem(grid=grid, screens=(plane,), ground_drag=0.0, viscosity=viscosity, **fields)
    return problem, index, span


def fence(
    height: float, linear: float, constants: Sequence[float], z0: float, longest: float
) -> tuple[Problem, int]:
    """Return a fence across the wind on rough ground, and its face; wind 1 at its top.

    Parameters
    ----------
    height : float, m
    linear : float
        K's a over the wind speed at the top.
    constants : sequence of float
        K's b, one per case.
    z0 : float, m
    longest : float, m
        Limit of the mixing length.
    """
    x = np.concatenate([height * _both_ways(0.5, 5, 25.0, 32)])
    z = height * _growing(1.0, 10, 12.0, 16)
    grid = SolverGrid((x, _ACROSS, z), ((1, len(x) - 2), (0, 2), (0, 10)))
    index, heights = len(x) // 2, grid.centres(2)
    plane = screen(
        grid,
        index,
        np.tile((heights < height)[:, None].astype(float), 2),
        [linear] * len(constants),
        constants,
    )
    n = len(constants)
    profile = np.log1p(heights / z0) / np.log1p(height / z0)
    length = np.minimum(KAPPA * (heights + z0), longest)
    fields = uniform_wind(grid, n) | {
        "inflow": np.stack([np.tile(profile[:, None], n), np.zeros((len(heights), n))]),
        "mixing_length": np.broadcast_to(length[:, None, None], grid.cells[::-1]).copy(),
    }
    drag = float((KAPPA / np.log1p(heights[0] / z0)) ** 2)
    return Problem(grid=grid, screens=(plane,), ground_drag=drag, **fields), index


def _growing(near: float, cells: int, far: float, more: int) -> np.ndarray:
    """Return edges from 0: `cells` even ones to `near`, then `more` growing ones to `far`."""
    even = np.linspace(0.0, near, cells + 1)
    low, high = 1.0, 3.0
    for _ in range(100):
        ratio = 0.5 * (low + high)
        reach = near + near / cells * np.sum(ratio ** np.arange(1, more + 1))
        low, high = (low, ratio) if reach > far else (ratio, high)
    beyond = near + near / cells * np.cumsum(ratio ** np.arange(1, more + 1))
    return np.concatenate([even, beyond])


def _both_ways(near: float, cells: int, far: float, more: int) -> np.ndarray:
    half = _growing(near, cells, far, more)
    return np.concatenate([-half[:0:-1], half])
