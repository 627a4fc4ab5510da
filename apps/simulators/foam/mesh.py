"""The mesh of a case: one block with the lines of the solver's grid, screens as baffles."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from apps.errors import SimulationError
from apps.simulators.foam import process
from apps.simulators.foam.screens import Baffle, Zone
from apps.simulators.foam.text import number, write, write_binary

#: The six sides of the domain and the corners of the block that span them.
SIDES = {
    "west": ("patch", "(0 4 7 3)"),
    "east": ("patch", "(1 2 6 5)"),
    "south": ("patch", "(0 1 5 4)"),
    "north": ("patch", "(3 7 6 2)"),
    "ground": ("wall", "(0 3 2 1)"),
    "top": ("patch", "(4 5 6 7)"),
}
#: A box around a plane reaches this far to either side, m: far less than half a cell.
_THIN = 1e-4


def write_mesh(
    folder: Path,
    nodes: Sequence[np.ndarray],
    baffles: Sequence[Baffle],
    zones: Sequence[Zone],
    empty: Iterable[str] = (),
) -> None:
    """Write the dictionaries of blockMesh, topoSet and createBaffles.

    blockMesh makes an even mesh; `write_points` goes between it and topoSet.

    Parameters
    ----------
    folder : Path
        The case.
    nodes : three (n + 1,) arrays, m
        Cell edges along x, y, z.
    baffles : sequence of Baffle
    zones : sequence of Zone
    empty : iterable of str
        Sides across which nothing varies, of a mesh of one cell there.
    """
    (x0, x1), (y0, y1), (z0, z1) = ((n[0], n[-1]) for n in nodes)
    corners = [(x, y, z) for z in (z0, z1) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    cells = [len(n) - 1 for n in nodes]
    size = " ".join(str(n) for n in cells)
    sides = [
        f"{name} {{ type {'empty' if name in empty else kind}; faces ({face}); }}"
        for name, (kind, face) in SIDES.items()
    ]
    block = {
        "scale": 1,
        "vertices": [[float(v) for v in corner] for corner in corners],
        "blocks": f"( hex (0 1 2 3 4 5 6 7) ({size}) simpleGrading (1 1 1) )",
        "boundary": sides,
    }
    write(folder, "system/blockMeshDict", block)
    actions = [a for baffle in baffles for a in _face_zone(baffle)]
    actions += [a for zone in zones for a in _cell_zone(zone.name, zone.cells)]
    write(folder, "system/topoSetDict", {"actions": actions})
    pairs = {
        baffle.name: {
            "type": "faceZone",
            "zoneName": baffle.name,
            "patches": {
                "master": _cyclic(f"{baffle.name}_m", f"{baffle.name}_s"),
                "slave": _cyclic(f"{baffle.name}_s", f"{baffle.name}_m"),
            },
        }
        for baffle in baffles
    }
    if pairs:
        content = {"internalFacesOnly": True, "noFields": True, "baffles": pairs}
        write(folder, "system/createBafflesDict", content)


def write_points(folder: Path, nodes: Sequence[np.ndarray]) -> None:
    """Put the points of the even mesh that blockMesh made onto the grid's lines.

    blockMesh's own grading is no way to arbitrary lines: a section per cell aborts, and one whose
    growth is 1 but for round-off divides by zero. Its point order is x fastest, then y, then z.
    """
    x, y, z = nodes
    points = np.empty((len(z), len(y), len(x), 3))
    points[..., 0], points[..., 1], points[..., 2] = x, y[:, None], z[:, None, None]
    write_binary(folder, "constant/polyMesh/points", points.reshape(-1, 3))


def build(folder: Path, nodes: Sequence[np.ndarray], baffles: bool) -> float:
    """Make the mesh that `write_mesh` described and put the fields in place.

    Returns
    -------
    float
        CPU time, s.

    Raises
    ------
    SimulationError
        If a program fails.
    """
    cpu = 0.0
    steps = [["blockMesh"], ["topoSet"]] + [["createBaffles", "-overwrite"]] * baffles
    for command in steps:
        ended = process.run(command, folder)
        cpu += ended.cpu
        if ended.code != 0:
            msg = f"{command[0]} failed: {ended.tail[-1000:]}"
            raise SimulationError(msg, program=command[0])
        if command[0] == "blockMesh":
            write_points(folder, nodes)
    # Only now: createBaffles would read the fields, and their patches do not exist before it.
    (folder / "0").mkdir()
    for path in (folder / "0.orig").iterdir():
        shutil.copyfile(path, folder / "0" / path.name)
    return cpu


def _face_zone(baffle: Baffle) -> list[str]:
    actions = []
    for k, rectangle in enumerate(baffle.rectangles):
        low, high = list(rectangle[0]), list(rectangle[1])
        low.insert(baffle.axis, baffle.place - _THIN)
        high.insert(baffle.axis, baffle.place + _THIN)
        box = f"{_point(low)} {_point(high)}"
        action = "add" if k else "new"
        actions.append(_action(f"{baffle.name}Set", "faceSet", action, "boxToFace", f"box {box}"))
    source = f"faceSet {baffle.name}Set"
    actions.append(_action(baffle.name, "faceZoneSet", "new", "setToFaceZone", source))
    return actions


def _cell_zone(name: str, mask: np.ndarray) -> list[str]:
    # blockMesh numbers cells with x fastest, then y, then z: the order of our arrays.
    labels = " ".join(str(i) for i in np.flatnonzero(mask))
    return [
        _action(f"{name}Set", "cellSet", "new", "labelToCell", f"value ({labels})"),
        _action(name, "cellZoneSet", "new", "setToCellZone", f"set {name}Set"),
    ]


def _action(name: str, kind: str, action: str, source: str, info: str) -> str:
    head = f"name {name}; type {kind}; action {action}; source {source}"
    return f"{{ {head}; sourceInfo {{ {info}; }} }}"


def _cyclic(name: str, neighbour: str) -> dict[str, str]:
    return {"name": name, "type": "cyclic", "neighbourPatch": neighbour}


def _point(values: Iterable[float]) -> str:
    return "(" + " ".join(number(v) for v in values) + ")"
