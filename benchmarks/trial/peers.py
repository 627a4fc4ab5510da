"""The trial's families of surrogates, sizes and settings as they were there.

`../shared/facts/cfd/surro.py` and ``surro_aug.py``: written before any of ours, and left as they
are. `PEERS` has them by name, each with what it reached on the trial's own house.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np

from apps.answers import model_inputs
from apps.simulation_set import SimulationSet
from benchmarks.trial import networks
from benchmarks.trial.columns import Columns, Fit, Modes, Predict
from edge_agent.contracts.features import sensor_column
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site import Site

#: Modes of a POD basis.
MODES = 48
#: Standard error of the trial's readings, over the mean of them.
TRIAL_ERROR = 0.03
#: Nought may not be said of an absolute error.
_NO_ERROR = 1e-9


def nearest(data: SimulationSet, site: Site) -> Predict:
    """Return the field of the run whose columns are nearest."""
    columns = Columns.of(data, site)
    known = columns(data.inputs)

    def predict(asked: SimulationSet) -> np.ndarray:
        between = columns(asked.inputs)[:, None] - known
        found = (between**2).sum(axis=2).argmin(axis=1)
        ratio = asked.wind_speed / data.wind_speed[found]
        return data.wind[found] * ratio[:, None, None, None, None]

    return predict


def gaussian_process(data: SimulationSet, site: Site) -> Predict:
    """POD, its coefficients by scikit-learn's process with an anisotropic Matern kernel."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    columns, pod = Columns.of(data, site), Modes.of(data, MODES)
    x = columns(data.inputs)
    kernel = ConstantKernel(1) * Matern(np.ones(x.shape[1]) * 3, (0.1, 100), nu=2.5)
    process = GaussianProcessRegressor(kernel + WhiteKernel(1e-3), normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lengths at the ends of their bounds
        process.fit(x, pod.coefficients)
    return lambda asked: pod.wind(process.predict(columns(asked.inputs)), asked.wind_speed)


def radial(data: SimulationSet, site: Site) -> Predict:
    """POD, its coefficients by scipy's cubic radial functions."""
    from scipy.interpolate import RBFInterpolator

    columns, pod = Columns.of(data, site), Modes.of(data, MODES)
    found = RBFInterpolator(columns(data.inputs), pod.coefficients, kernel="cubic", degree=1)
    return lambda asked: pod.wind(found(columns(asked.inputs)), asked.wind_speed)


def readings(data: SimulationSet, site: Site, errors: ReadingErrors) -> np.ndarray:
    """Return what the site's interior sensors read, (n, sensors) m/s; errors follow the digest."""
    names = [sensor_column(s.name) for s in site.sensors]
    return model_inputs(data, names, site, errors).astype(float)


def trial_errors(data: SimulationSet, site: Site) -> ReadingErrors:
    """Return the trial's errors of readings: absolute, a share of their mean over the runs."""
    exact = ReadingErrors(sensor_relative=0.0, sensor_absolute=_NO_ERROR)
    mean = float(readings(data, site, exact).mean())
    return ReadingErrors(sensor_relative=0.0, sensor_absolute=TRIAL_ERROR * mean)


def ridge(data: SimulationSet, site: Site) -> Predict:
    """POD, its coefficients linear in the readings: nothing is told of wind and house."""
    from sklearn.linear_model import Ridge

    pod, errors = Modes.of(data, MODES), trial_errors(data, site)
    found = Ridge(1e-2).fit(readings(data, site, errors), pod.coefficients)

    def predict(asked: SimulationSet) -> np.ndarray:
        return pod.wind(found.predict(readings(asked, site, errors)), asked.wind_speed)

    return predict


def sensors(data: SimulationSet, site: Site, errors: ReadingErrors | None = None) -> Predict:
    """POD, its coefficients by an MLP from readings and columns; the trial's errors if none."""
    columns, pod = Columns.of(data, site), Modes.of(data, MODES)
    errors = errors or trial_errors(data, site)
    read = readings(data, site, errors)
    mean, spread = read.mean(axis=0), read.std(axis=0)

    def told(runs: SimulationSet) -> np.ndarray:
        scaled = (readings(runs, site, errors) - mean) / spread
        return np.concatenate([scaled, columns(runs.inputs)], axis=1)

    network = networks.coefficients(told(data), pod, steps=2000)
    return lambda asked: pod.wind(network(told(asked)), asked.wind_speed)


@dataclass(frozen=True)
class Peer:
    """A family of the trial."""

    fit: Fit
    trial: dict[int, float]
    """Mean relative L2 error of speed by number of runs, on the trial's house."""


def _of(a: float, b: float, c: float) -> dict[int, float]:
    return {16: a, 64: b, 256: c}


PEERS = {
    "nearest run": Peer(nearest, _of(0.253, 0.189, 0.177)),
    "POD + GP": Peer(gaussian_process, _of(0.888, 0.372, 0.042)),
    "POD + RBF": Peer(radial, _of(0.354, 0.117, 0.076)),
    "POD + MLP": Peer(networks.pod_mlp, _of(0.306, 0.079, 0.036)),
    "U-Net": Peer(networks.u_net, _of(0.255, 0.061, 0.036)),
    "coordinate MLP": Peer(networks.coordinate_mlp, _of(0.438, 0.155, 0.064)),
    "POD + MLP, mirrored runs": Peer(networks.mirrored_pod_mlp, _of(0.050, 0.029, 0.021)),
    "readings, ridge, POD": Peer(ridge, {64: 0.148, 256: 0.140}),
    "readings + parameters, MLP, POD": Peer(sensors, {64: 0.047, 256: 0.029}),
    "the same, errors of 12 % + 0.05 m/s": Peer(partial(sensors, errors=ReadingErrors()), {}),
}
#: What the trial had of the like of our families, with the mirrors and without them.
LIKE = {
    ("pod_gp", False): PEERS["POD + GP"].trial,
    ("pod_network", False): PEERS["POD + MLP"].trial,
    ("pod_network", True): PEERS["POD + MLP, mirrored runs"].trial,
    ("convolutional", False): PEERS["U-Net"].trial,
    ("coordinate_network", False): PEERS["coordinate MLP"].trial,
}
#: The trial's best.
BEST = PEERS["POD + MLP, mirrored runs"].trial
