"""Stages with a state: trained, validated, published, taken over where only the state has moved."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from apps.answers import answering, model_inputs
from apps.candidates import MODEL, read_candidate
from apps.datasets import RunInfo, load_simulations, write_ensemble, write_simulation
from apps.errors import DatasetError, TrainingError, ValidationError
from apps.publish import PublishTask, publish
from apps.repository import roots
from apps.repository.keys import new_passphrase
from apps.repository.reading import open_index, read_release
from apps.repository.store import FolderStore
from apps.rescore import rescore
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from apps.space import space_of
from apps.train import TrainTask, train
from apps.transport import Base
from apps.validate import ValidateTask, validate
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site_state import SiteState, Tear

INFO = RunInfo("embedded", "0", True, 0.0, 1, 0.0, 0.1, 0.1, {})
WEST = Tear(panel="west", centre=27.0, width=20.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory, small_site, make_houses):
    """Read-only but for what tests add: a run folder of houses that differ."""
    folder = tmp_path_factory.mktemp("houses")
    sets = {}
    for k, (name, n) in enumerate(
        (("training", 32), ("selection", 8), ("calibration", 16), ("evaluation", 16))
    ):
        data = make_houses(n, 1 + k, tears=True)
        for i, digest in enumerate(data.digests):
            panel, centre, width = data.state[i, 1:]
            name_of = data.space.panels[int(panel) - 1]
            tears = (Tear(panel=name_of, centre=centre, width=width),) if panel else ()
            scenario = Scenario(
                wind_speed=data.wind_speed[i],
                wind_from_direction=data.wind_from_direction[i],
                screen_loss_factor=data.state[i, 0],
                tears=tears,
            )
            case = Case(small_site, scenario, Fidelity())
            write_simulation(
                folder / "simulations", digest, case, Resources(), data.wind[i], None, INFO
            )
        write_ensemble(folder / "ensembles", data.digests)
        sets[name] = data.digests
    roots.init(
        FolderStore(folder / "repository"),
        folder / "keys",
        [folder / "root-keys"],
        passphrase=new_passphrase,
    )
    return folder, sets


@pytest.fixture
def task(root, small_site):
    folder, sets = root
    return TrainTask(
        site=small_site,
        family="pod_gp",
        settings={"harmonics": 8},
        digests=sets["training"],
        store=str(folder / "simulations"),
        candidates=str(folder / "candidates"),
        space=space_of(small_site, loss=True, tears=True),
        readings=ReadingErrors(mast_speed=0.05),
        site_state=SiteState(screen_loss_factor=1.2, log_error=0.1),
    )


def checked(root, site, folder, previous=None, **change):
    sets = {k: v for k, v in root[1].items() if k != "training"}
    return validate(
        ValidateTask(
            site=site,
            candidate=folder,
            store=str(root[0] / "simulations"),
            frozen_sets=sets,
            fidelity="synthetic",
            previous=previous,
            **change,
        )
    )


def test_the_state_is_the_default_of_its_columns(task):
    candidate = read_candidate(Path(train(task).folder))
    assert candidate.columns[2:6] == (
        "screen_loss_factor", "tear_panel", "tear_centre", "tear_width"
    )  # fmt: skip
    defaults = [v.default for v in candidate.inputs]
    assert defaults == [None, None, 1.2, 0.0, 0.0, 0.0, SILENT, SILENT, SILENT]
    torn = task.model_copy(update={"site_state": SiteState(tears=(WEST,))})
    again = read_candidate(Path(train(torn).folder))
    assert [v.default for v in again.inputs[3:6]] == [1.0, 27.0, 20.0]
    assert again.model_sha256 == candidate.model_sha256, "the same model, told otherwise"


def test_where_only_the_state_has_moved_nothing_is_trained(root, task, small_site):
    first = train(task)
    assert checked(root, small_site, first.folder).verdict.accepted
    moved = task.model_copy(
        update={
            "site_state": SiteState(screen_loss_factor=1.5),
            "previous": Path(first.folder).name,
            "keep_basis": True,
        }
    )
    second = train(moved)
    assert second.candidate != first.candidate
    before, after = (read_candidate(Path(r.folder)) for r in (first, second))
    assert after.model_sha256 == before.model_sha256
    assert after.chosen == before.chosen
    assert after.inputs[2].default == 1.5
    base = Base(folder=first.folder, version=1)
    refused = checked(root, small_site, second.folder, base)
    assert not refused.verdict.accepted, "it is no better where every model is told the truth"
    accepted = checked(root, small_site, second.folder, base, state_moved=True)
    assert accepted.verdict.accepted
    assert accepted.serving.delta is not None
    assert accepted.serving.delta.length < 1000, "the model travels as nothing"


def test_other_runs_are_trained_on(task):
    first = train(task)
    fewer = task.model_copy(
        update={"digests": task.digests[1:], "previous": Path(first.folder).name}
    )
    models = [(Path(train(t).folder) / MODEL).read_bytes() for t in (task, fewer)]
    assert models[0] != models[1]


def test_a_release_says_all_that_a_recount_needs(root, task, small_site):
    folder = root[0]
    result = train(task)
    found = checked(root, small_site, result.folder)
    assert found.uncertainty is not None
    assert found.uncertainty.limits.keys() == {"distance", "innovation"}
    publish(
        PublishTask(
            site=small_site,
            version=1,
            candidate=result.folder,
            repository=str(folder / "repository"),
            keys=str(folder / "keys"),
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    store = FolderStore(folder / "repository")
    release = read_release(store, open_index(store), 1)
    assert [o.name for o in release.outputs] == ["wind", "wind_std", "distance", "innovation"]
    assert [o.diagnostic for o in release.outputs] == [False, False, True, True]
    assert release.reading_errors == task.readings
    assert release.golden.outputs.keys() == {o.name for o in release.outputs}
    report = rescore(folder / "repository", run=folder)
    assert report.agrees, report.table()
    assert any(row.name == "limit of innovation" for row in report.rows)


def test_what_is_drawn_for_a_simulation_is_its_own(root, task, small_site):
    folder, sets = root
    data = load_simulations(folder / "simulations", sets["selection"], small_site, task.space)
    columns = read_candidate(Path(train(task).folder)).columns
    errors = ReadingErrors(mast_speed=0.1, mast_direction=5.0)
    whole = model_inputs(data, columns, small_site, errors)
    some = np.array([5, 2])
    np.testing.assert_array_equal(
        model_inputs(data.take(some), columns, small_site, errors), whole[some]
    )
    plain = model_inputs(data, columns, small_site)
    np.testing.assert_array_equal(plain[:, :6], data.inputs)
    assert (np.abs(whole[:, 2] / plain[:, 2] - 1) > 1e-4).all(), "the state it is told is off"
    np.testing.assert_array_equal(whole[:, 3:6], plain[:, 3:6])
    wind = data.columns[:2]
    np.testing.assert_array_equal(model_inputs(data, wind, small_site), data.inputs[:, :2])


def test_a_column_that_nobody_tells_is_an_error(root, small_site):
    folder, sets = root
    data = load_simulations(folder / "simulations", sets["selection"], small_site)
    with pytest.raises(ValidationError, match="do not tell screen_loss_factor"):
        model_inputs(data, ["wind_speed", "screen_loss_factor"], small_site)
    answer = answering(b"", ["screen_loss_factor"], small_site, None)
    with pytest.raises(ValidationError, match="screen_loss_factor"):
        answer(data)


def test_two_tears_cannot_be_told(small_site, tmp_path, make_houses):
    data = make_houses(1)
    scenario = Scenario(
        wind_speed=5,
        wind_from_direction=10,
        tears=(WEST, Tear(panel="east", centre=30, width=10)),
    )
    case = Case(small_site, scenario, Fidelity())
    digest = data.digests[0]
    write_simulation(tmp_path, digest, case, Resources(), data.wind[0], None, INFO)
    load_simulations(tmp_path, [digest], small_site)
    with pytest.raises(DatasetError, match="cannot be told"):
        load_simulations(
            tmp_path, [digest], small_site, space_of(small_site, loss=True, tears=True)
        )


def test_a_family_of_wind_alone_says_what_it_cannot(task):
    plain = task.model_copy(update={"family": "pod_regression", "settings": {}})
    with pytest.raises(TrainingError, match="takes wind alone"):
        train(plain)
    nothing = task.model_copy(update={"readings": ReadingErrors(screen_loss=0.0), "seed": 1})
    with pytest.raises(TrainingError, match="nothing that the interior sensors could correct"):
        train(nothing)


def test_the_digest_depends_on_state_space_and_readings(task):
    others = [
        task,
        task.model_copy(update={"site_state": None}),
        task.model_copy(update={"readings": None}),
        task.model_copy(update={"readings": ReadingErrors()}),
        task.model_copy(update={"space": space_of(task.site, loss=True, tears=False)}),
    ]
    assert len({t.digest() for t in others}) == len(others)
    assert dataclasses.is_dataclass(INFO)
