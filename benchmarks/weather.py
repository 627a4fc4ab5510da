"""The mast record as the model's inputs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from edge_agent.contracts.features import MastLogLaw, log_law_factor
from edge_agent.contracts.site import Site

RECORD = Path(__file__).resolve().parent.parent / "data" / "weather" / "mast_10min.csv"


def recorded(site: Site, path: Path = RECORD) -> tuple[np.ndarray, np.ndarray]:
    """Return a record's instants and winds; instants without either are left out.

    Returns
    -------
    seconds : (n,) array, s since the Unix epoch
    winds : (n, 2) array
        Speed at the reference height (m/s) and direction (degrees).
    """
    columns = ("time", "wind_speed_40m", "wind_from_direction_38m")
    rows = np.genfromtxt(
        path, delimiter=",", names=True, usecols=columns, dtype=None, encoding="utf-8"
    )
    map_ = MastLogLaw.for_site(site)
    factor = log_law_factor(map_.measurement_height, map_.reference_height, map_.roughness_length)
    winds = map_.from_wind(rows[columns[1]] * factor, rows[columns[2]])
    seconds = np.array([datetime.fromisoformat(f"{t}+00:00").timestamp() for t in rows["time"]])
    keep = np.isfinite(winds).all(axis=1)
    return seconds[keep], winds[keep].astype(float)
