"""Plan and section of a run as a picture: ``python -m apps.simulators.plot FILE [--out PNG]``.

FILE is a simulation on the site's output grid, or on the solver's own (``DIGEST.native.nc``), which
shows the wind outside too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError

from apps.cf import COMPONENTS
from apps.datasets import FORMAT, NATIVE_FORMAT
from apps.errors import DatasetError
from apps.scenarios import Scenario
from apps.simulators.panels import Piece, pieces
from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.site import Site

#: What is shown of the open ground: metres beside the house, house heights above the ground.
_BESIDE, _ABOVE = 25.0, 2.5
#: Sensors this far from the section are drawn on it, m.
_NEAR = 10.0
#: Points of the even grid that streamlines want, along each direction.
_POINTS = (160, 60)
_LABEL: dict[str, Any] = {
    "xytext": (7, 7),
    "textcoords": "offset points",
    "fontsize": 8,
    "bbox": {"boxstyle": "round,pad=0.15", "fc": "w", "ec": "none", "alpha": 0.8},
}


@dataclass(frozen=True)
class Picture:
    """A flow read back for drawing."""

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Cell centres along x, y, z, m."""
    wind: np.ndarray
    """(3, nz, ny, nx), m/s."""
    site: Site
    scenario: Scenario
    solver: str


def read(path: Path) -> Picture:
    """Read a simulation on either grid; raises `DatasetError` if it is none."""
    from netCDF4 import Dataset

    try:
        with Dataset(path) as file:
            file.set_auto_mask(False)
            if file.getncattr("rbf_format") not in (FORMAT, NATIVE_FORMAT):
                msg = f"{path}: not a simulation of this version; simulate again"
                raise DatasetError(msg, file=str(path))
            x, y, z = (np.asarray(file[name][:], dtype=float) for name in "xyz")
            return Picture(
                (x, y, z),
                np.stack([file[name][:] for name in COMPONENTS]),
                Site.model_validate_json(file.getncattr("site_definition")),
                Scenario.model_validate_json(file.getncattr("scenario")),
                f"{file.getncattr('solver')} {file.getncattr('solver_version')}",
            )
    except (OSError, RuntimeError, AttributeError, LookupError, ValidationError) as error:
        msg = f"{path}: missing, truncated or not a simulation ({error})"
        raise DatasetError(msg, file=str(path)) from error


def draw(path: Path, out: Path) -> Path:
    """Draw plan and section of a simulation into a PNG and return its path.

    Raises
    ------
    DatasetError
        If the file is not a simulation.
    OSError
        If the picture cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = read(path)
    box = shown.site.footprint
    parts = pieces(shown.site, shown.scenario)
    axis, at = _cut(shown, parts)
    height = box.height / 2
    fig, (plan, section) = plt.subplots(
        2, 1, figsize=(9, 8.5), height_ratios=(2.4, 1), layout="constrained"
    )
    top = float(np.percentile(_level(shown, height)[2], 99.5))
    mesh = _flow(plan, *_level(shown, height), top)
    fig.colorbar(mesh, ax=plan, label="wind speed, m/s")
    mesh = _flow(section, *_slice(shown, axis, at), top)
    fig.colorbar(mesh, ax=section, label="wind speed, m/s")
    _plan(plan, shown, parts, height)
    (plan.axhline if axis == 0 else plan.axvline)(at, color="k", lw=0.6, ls=":")
    _section(section, shown, parts, axis, at)
    name = "xy"[axis]
    plan.set(title=f"Plan at {height:g} m", xlabel="x, m", ylabel="y, m", aspect="equal")
    section.set(
        title=f"Section at {'yx'[axis]} = {at:g} m", xlabel=f"{name}, m", ylabel="height, m"
    )
    wind = f"{shown.scenario.wind_speed:g} m/s from {shown.scenario.wind_from_direction:g}°"
    fig.suptitle(f"{shown.site.title}: {wind}, {shown.solver}")
    out.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(out, dpi=100)
    plt.close(fig)
    return out


def _cut(shown: Picture, parts: list[Piece]) -> tuple[int, float]:
    """Return the axis that the section runs along and where: through a tear if there is one."""
    box = shown.site.footprint
    lengths = (box.length_x, box.length_y)
    for piece in parts:
        if piece.open_fraction > 0 and piece.axis < 2:
            return piece.axis, sum(piece.first) / 2
        if piece.open_fraction > 0:
            return 0, sum(piece.second) / 2
    mean = np.abs(shown.wind[:2].mean(axis=(1, 2, 3)))
    axis = int(np.argmax(mean))
    return axis, lengths[1 - axis] / 2


def _level(shown: Picture, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any, Any]:
    """Return (x, y, speed, u, v) on a horizontal plane, on an even grid."""
    x, y, z = shown.axes
    plane = _interpolate(shown.wind, z, height, 1)
    box = shown.site.footprint
    return _even(x, y, plane, (box.length_x, box.length_y), (0, 1), _BESIDE)


def _slice(
    shown: Picture, axis: int, at: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any, Any]:
    """Return (along, height, speed, along-wind, upward wind) on a vertical plane."""
    places = shown.axes[axis]
    plane = _interpolate(shown.wind, shown.axes[1 - axis], at, 2 if axis == 0 else 3)
    box = shown.site.footprint
    length = (box.length_x, box.length_y)[axis]
    top = (length, box.height * _ABOVE)
    return _even(places, shown.axes[2], plane, top, (axis, 2), _BESIDE, floor=True)


def _interpolate(wind: np.ndarray, places: np.ndarray, at: float, dim: int) -> np.ndarray:
    weights = [np.interp(at, places, unit) for unit in np.eye(len(places))]
    return np.asarray(np.tensordot(wind, weights, axes=(dim, 0)))


def _even(
    a: np.ndarray,
    b: np.ndarray,
    plane: np.ndarray,
    lengths: tuple[float, float],
    components: tuple[int, int],
    beside: float,
    *,
    floor: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any, Any]:
    """Return a plane on an even grid, cut to the house and some ground beside it."""
    low = max(a[0], -beside), 0.0 if floor else max(b[0], -beside)
    high = min(a[-1], lengths[0] + beside), min(b[-1], lengths[1] + (0 if floor else beside))
    across = np.linspace(low[0], high[0], _POINTS[0])
    up = np.linspace(low[1], high[1], _POINTS[1])
    left = np.stack([np.interp(across, a, unit) for unit in np.eye(len(a))])
    below = np.stack([np.interp(up, b, unit) for unit in np.eye(len(b))])
    even = np.einsum("cba,ax,by->cyx", plane, left, below)
    speed = np.sqrt((even**2).sum(axis=0))
    return across, up, speed, even[components[0]], even[components[1]]


def _flow(
    ax: Any,  # noqa: ANN401 - matplotlib has no types
    a: np.ndarray,
    b: np.ndarray,
    speed: np.ndarray,
    along: np.ndarray,
    up: np.ndarray,
    top: float,
) -> Any:  # noqa: ANN401
    mesh = ax.pcolormesh(a, b, speed, vmin=0, vmax=top, shading="gouraud", cmap="viridis")
    ax.streamplot(a, b, along, up, color="w", linewidth=0.6, arrowsize=0.7, density=1.3)
    return mesh


def _plan(ax: Any, shown: Picture, parts: list[Piece], height: float) -> None:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    for row in shown.site.canopy:
        size = [e - s for s, e in zip(row.start, row.end, strict=True)]
        ax.add_patch(Rectangle(row.start, *size, fill=False, ec="lightgreen", lw=0.8, hatch="."))
    for piece in parts:
        low, high = piece.second
        if piece.axis == 2:
            if piece.open_fraction > 0:
                size = [b - a for a, b in (piece.first, piece.second)]
                corner = (piece.first[0], piece.second[0])
                ax.add_patch(Rectangle(corner, *size, fill=False, ec="r", lw=1.5, ls="--"))
        elif low <= height <= high:
            ends = ([piece.place] * 2, piece.first)
            a, b = ends if piece.axis == 0 else ends[::-1]
            _line(ax, a, b, piece)
        if piece.open_fraction > 0:
            middle = sum(piece.first) / 2
            where = ((piece.place, middle), (middle, piece.place), (middle, sum(piece.second) / 2))
            text = f"{piece.name}, {100 * piece.open_fraction:.0f} % open"
            ax.annotate(text, where[piece.axis], **(_LABEL | {"xytext": (7, -30)}), color="r")
    for sensor in shown.site.sensors:
        ax.plot(*sensor.position[:2], "^", color="orange", mec="k", ms=8)
        ax.annotate(sensor.name, sensor.position[:2], **_LABEL)


def _section(ax: Any, shown: Picture, parts: list[Piece], axis: int, at: float) -> None:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    for row in shown.site.canopy:
        if row.start[1 - axis] <= at <= row.end[1 - axis]:
            size = row.end[axis] - row.start[axis], row.height
            corner = (row.start[axis], 0)
            ax.add_patch(Rectangle(corner, *size, fill=False, ec="lightgreen", lw=0.8, hatch="."))
    for piece in parts:
        if piece.axis == axis and piece.first[0] <= at <= piece.first[1]:
            _line(ax, [piece.place] * 2, piece.second, piece)
        if piece.axis == 2:
            along, across = (piece.first, piece.second)[:: 1 if axis == 0 else -1]
            if across[0] <= at <= across[1]:
                _line(ax, along, [piece.place] * 2, piece)
    for sensor in shown.site.sensors:
        if abs(sensor.position[1 - axis] - at) <= _NEAR:
            ax.plot(sensor.position[axis], sensor.position[2], "^", color="orange", mec="k", ms=8)


def _line(ax: Any, a: Any, b: Any, piece: Piece) -> None:  # noqa: ANN401
    """Draw a whole piece of screen in black, a torn one in red, the thinner the more is gone."""
    if piece.open_fraction > 0:
        ax.plot(a, b, color="r", lw=1.5 + 3 * piece.open_fraction, solid_capstyle="butt", alpha=0.8)
    else:
        ax.plot(a, b, color="k", lw=2.5, solid_capstyle="butt")


def _main(
    file: Annotated[Path, typer.Argument(help="A simulation, on either grid.")],
    out: Annotated[Path | None, typer.Option(help="PNG; beside FILE if none.")] = None,
) -> None:
    """Draw plan and section of a run to PNG."""
    try:
        typer.echo(draw(file, out or file.with_suffix(".png")))
    except (RbfError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(_main)
