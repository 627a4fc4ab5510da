"""OpenFOAM as Debian packages it: where it is, what it needs, and every trap of its environment.

- ``WM_PROJECT_DIR`` must be set, or every program ends with "Could not find mandatory etc entry
  controlDict"; the package's ``etc/bashrc`` is broken, so it is set here and nothing is sourced.
- ``PWD`` must be the case folder, or every program warns.
- OpenMPI refuses root, and to run more processes than it believes there are cores, unless told.
- ``FOAM_SIGFPE``: floating-point traps end a diverging run early, but also kill a linear solver on
  an exactly uniform flow (0 / 0 in its normalisation), as in a duct.
- The domain decomposition ``scotch`` is a stub that aborts (`case` uses ``hierarchical``).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from apps.errors import SimulationError

#: Where Debian's package keeps its etc folder.
PROJECT = Path("/usr/share/openfoam")
#: Programs that a run needs.
PROGRAMS = ("blockMesh", "topoSet", "createBaffles", "simpleFoam")
#: Those that a run on several cores needs as well.
PARALLEL = ("decomposePar", "reconstructPar", "mpirun")


def missing(parallel: bool = False) -> list[str]:
    """Return the programs that are not installed."""
    names = PROGRAMS + (PARALLEL if parallel else ())
    return [name for name in names if shutil.which(name) is None]


def require(parallel: bool = False) -> None:
    """Raise `SimulationError` where OpenFOAM is not installed; says which package it is."""
    if absent := missing(parallel):
        package = "openmpi-bin" if absent == ["mpirun"] else "openfoam"
        msg = (
            f"OpenFOAM is not installed ({', '.join(absent)} not found on PATH); on Debian: "
            f"apt install {package}"
        )
        raise SimulationError(msg, missing=tuple(absent))
    if not _project().joinpath("etc/controlDict").exists():
        msg = (
            f"{_project()}/etc/controlDict not found: OpenFOAM is not where Debian's package puts "
            "it; set WM_PROJECT_DIR"
        )
        raise SimulationError(msg)


def environment(folder: Path, trap: bool = True) -> dict[str, str]:
    """Return the environment for a program that works in `folder`.

    Parameters
    ----------
    folder : Path
        The case.
    trap : bool
        Whether a floating-point exception ends the program.
    """
    return os.environ | {
        "WM_PROJECT": "OpenFOAM",
        "WM_PROJECT_DIR": str(_project()),
        "WM_PROJECT_VERSION": os.environ.get("WM_PROJECT_VERSION", "v1912"),
        "PWD": str(folder),
        "FOAM_SIGFPE": "true" if trap else "false",
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # Several tasks share a node: binding would put them all on its first cores.
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        # Processes that wait would take the cores of those that work.
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_btl_base_warn_component_unused": "0",
    }


def parallel_command(program: str, processes: int) -> list[str]:
    """Return the command that runs a program on several processes."""
    return ["mpirun", "-np", str(processes), program, "-parallel"]


@functools.cache
def version() -> str:
    """Return the version of the OpenFOAM that is installed, for example ``1912``."""
    require()
    result = subprocess.run(
        ["blockMesh", "-help"],
        env=environment(Path.cwd()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = re.search(r"(?:Using: OpenFOAM-|OPENFOAM=|OpenFOAM-v?)\s*\(?v?([\d.]+)", result.stdout)
    return found[1] if found else "unknown"


def _project() -> Path:
    return Path(os.environ.get("WM_PROJECT_DIR", PROJECT))
