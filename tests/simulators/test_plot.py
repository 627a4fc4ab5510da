"""Pictures of runs, on both grids."""

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from apps.cf import COMPONENTS
from apps.datasets import native_path
from apps.deadline import Unlimited
from apps.errors import DatasetError
from apps.scenarios import Scenario, Tear
from apps.simulators import plot
from apps.simulators.base import Case, Fidelity, Resources
from apps.simulators.embedded import EmbeddedSimulator


@pytest.fixture(scope="module")
def torn(site, tmp_path_factory):
    """The files of a run with two tears: (on the output grid, on the solver's own)."""
    tears = (
        Tear(panel="west_middle", centre=15, width=10),
        Tear(panel="roof", centre=20, width=8, span=(10, 20), open_fraction=0.5),
    )
    scenario = Scenario(wind_speed=4, wind_from_direction=260, tears=tears)
    sensor = {"name": "inside", "position": (20, 15, 2)}
    site = type(site).model_validate(site.model_dump() | {"sensors": [sensor]})
    case = Case(site, scenario, Fidelity(cells=(14, 12, 6), tolerance=2e-2))
    store = tmp_path_factory.mktemp("plot")
    simulator = EmbeddedSimulator(store, native=True)
    (end,) = simulator.run([case], Resources(batch=1), None, Unlimited())
    return end.path, native_path(store, end.digest)


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_becomes_a_picture(torn, which, tmp_path):
    from matplotlib import image

    picture = image.imread(plot.draw(torn[which], tmp_path / "new" / "run.png"))
    assert picture.shape[:2] == (850, 900)
    red = (picture[..., 0] > 0.7) & (picture[..., 1] < 0.4) & (picture[..., 2] < 0.4)
    assert red.sum() > 100, "the tear is drawn"
    assert len(np.unique(picture[..., 1])) > 100, "the flow is drawn"


def test_the_section_goes_through_the_tear(torn):
    shown = plot.read(torn[0])
    assert plot._cut(shown, plot.pieces(shown.site, shown.scenario)) == (0, 15.0)


def test_the_wind_outside_is_in_the_native_file_alone(torn):
    inside, native = (plot.read(path) for path in torn)
    assert inside.axes[0].min() > 0
    assert native.axes[0].min() < -30
    assert native.wind.shape == (3, 6, 12, 14)
    assert np.isfinite(native.wind).all()
    assert COMPONENTS[0] == "x_wind"


def test_command_line(torn, tmp_path):
    app = typer.Typer()
    app.command()(plot._main)
    out = tmp_path / "run.png"
    done = CliRunner().invoke(app, [str(torn[0]), "--out", str(out)])
    assert (done.exit_code, done.output.strip()) == (0, str(out))
    (tmp_path / "broken.nc").write_bytes(b"no netCDF")
    for wrong in ("none.nc", "broken.nc"):
        failed = CliRunner().invoke(app, [str(tmp_path / wrong)])
        assert failed.exit_code == 2
        assert failed.output.startswith("error: ")
    with pytest.raises(DatasetError):
        plot.read(tmp_path / "broken.nc")
