"""Two simulators against each other: what the correction is worth, and what each costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.answers import answering
from apps.correction import load_truth
from apps.datasets import load_simulations
from apps.repository.reading import open_index, read_release
from apps.repository.store import FolderStore
from apps.scores import relative_l2, rmse
from apps.simulation_set import SimulationSet
from apps.surrogates.base import WIND
from edge_agent.contracts.repository import target_file
from edge_agent.contracts.site import Site
from workflows.config import Campaign
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.tasks import correction, is_dear


def held_out_scores(
    campaign: Campaign, site: Site, folder: RunFolder, ledger: Ledger, version: int | None
) -> dict[str, Any] | None:
    """Return errors against the dear simulator's held-out runs, and costs.

    Parameters
    ----------
    campaign, site, folder, ledger
    version : int or None
        Release to score beside the solvers; none if none was published.

    Returns
    -------
    dict or None
        ``errors``: name -> {``rmse`` m/s, ``relative_l2`` of the wind, ``relative_l2_speed``};
        ``seconds``: simulator -> mean wall time of a run, s; ``pairs`` and ``held_out``. None for a
        campaign with one simulator, or before its pairs are complete.
    """
    if not campaign.corrected:
        return None
    rows = [row for row in ledger.simulations() if row.state == "done"]
    learnt, judged = correction(ledger, "reference"), correction(ledger, "held_out")
    if learnt is None or judged is None:
        return None
    store, space, (cheap, dear) = (
        folder.simulations,
        campaign.scenarios.space(site),
        names(campaign),
    )
    truth = load_simulations(store, judged.high, site, space)
    predictions = {
        cheap: load_simulations(store, judged.low, site, space).wind,
        f"{cheap}, corrected": load_truth(store, judged.low, site, learnt, space).wind,
    }
    if version is not None:
        predictions[f"release {version}"] = predict(folder, version, truth, site)
    cost: dict[str, list[float]] = {}
    for row in rows:
        name = dear if is_dear(campaign, row.role) else cheap
        cost.setdefault(name, []).append(row.seconds or 0.0)
    return {
        "pairs": len(learnt.low),
        "held_out": len(judged.low),
        "errors": {
            name: {
                "rmse": rmse(truth.wind, wind),
                "relative_l2": relative_l2(truth.wind, wind),
                "relative_l2_speed": relative_l2(_speed(truth.wind), _speed(wind)),
            }
            for name, wind in predictions.items()
        },
        "seconds": {name: float(np.mean(spent)) for name, spent in cost.items()},
    }


def names(campaign: Campaign) -> tuple[str, str]:
    """Return what the cheap and the dear runs are called: by simulator, or by grid if it is one."""
    if len(set(campaign.simulators)) > 1:
        return campaign.simulators[0], campaign.simulators[1]
    return str(campaign.fidelity), str(campaign.reference.fidelity)


def predict(folder: RunFolder, version: int, at: SimulationSet, site: Site) -> np.ndarray:
    """Return what a published file answers: (n, 3, nz, ny, nx) float32, m/s.

    Parameters
    ----------
    folder : RunFolder
    version : int
    at : SimulationSet
        Whose winds are asked for.
    site : Site
    """
    store = FolderStore(folder.repository)
    release = read_release(store, open_index(store), version)
    model = target_file(folder.repository, release.model).read_bytes()
    columns = [v.name for v in release.inputs]
    return answering(model, columns, site, release.reading_errors)(at)[WIND]


def _speed(wind: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(wind, axis=1))
