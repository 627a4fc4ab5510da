"""The inputs of a trained model: names, units, the range that training covers, defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.answers import sensor_speeds, sensor_weights
from apps.space import LOSS_FACTOR, TEAR_CENTRE, TEAR_PANEL, TEAR_WIDTH
from edge_agent.contracts.features import SILENT, FeatureMap, InputVariable, MastAndSensors
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

#: Readings gust: a sensor may read so many times the fastest wind that was simulated there.
_GUSTS = 1.5


def input_variables(
    feature_map: FeatureMap, data: SimulationSet, site: Site, state: SiteState | None
) -> tuple[InputVariable, ...]:
    """Return the inputs of a model trained on some simulations.

    Columns come in this order: the mast's wind, the state of the house, interior sensors.
    Directions are a circle, and its whole is in range: a gap in the runs widens ``wind_std`` and
    shows in the distance to the nearest run.

    Parameters
    ----------
    feature_map : FeatureMap
    data : SimulationSet
        The training runs.
    site : Site
    state : SiteState, optional
        Estimated state, the default of its columns; as in the site file if none.
    """
    state = state or SiteState()
    ranges = {
        "wind_speed": (data.wind_speed.min(), data.wind_speed.max()),
        "wind_from_direction": (0.0, 360.0),
    }
    defaults: dict[str, float] = {LOSS_FACTOR: state.screen_loss_factor}
    if data.space.panels:
        names = (TEAR_PANEL, TEAR_CENTRE, TEAR_WIDTH)
        defaults |= dict(zip(names, data.space.tear(state.tears), strict=True))
    for j, (name, _) in enumerate(data.space.columns):
        column = data.state[:, j]
        ranges[name] = (column.min(), column.max())
        defaults.setdefault(name, float(np.median(column)))
    columns = [*feature_map.columns[:2], *data.space.columns, *feature_map.columns[2:]]
    if isinstance(feature_map, MastAndSensors):
        speeds = sensor_speeds(data.wind, sensor_weights(site))
        for (name, _), fastest in zip(feature_map.columns[2:], speeds.max(axis=0), strict=True):
            ranges[name], defaults[name] = (SILENT, _GUSTS * fastest), SILENT
    return tuple(
        InputVariable(
            name=name,
            unit=unit,
            # Inputs are float32: an end rounded inwards would put its own run out of range.
            minimum=_outwards(ranges[name][0], -np.inf),
            maximum=_outwards(ranges[name][1], np.inf),
            default=defaults.get(name),
        )
        for name, unit in columns
    )


def _outwards(value: float, towards: float) -> float:
    single = np.float32(value)
    beyond = single > value if towards < 0 else single < value
    return float(np.nextafter(single, np.float32(towards)) if beyond else single)
