"""Case files, fields and log lines; needs no OpenFOAM."""

import numpy as np
import pytest

from apps.errors import DatasetError, SimulationError
from apps.simulators.foam import archive, environment, fields, process, text
from apps.simulators.foam.case import Wind
from apps.simulators.foam.log import Monitor

LOG = """
Time = 7

smoothSolver:  Solving for Ux, Initial residual = 2e-04, Final residual = 1e-05, No Iterations 1
GAMG:  Solving for p, Initial residual = 5e-03, Final residual = 4e-05, No Iterations 3
GAMG:  Solving for p, Initial residual = 9e-09, Final residual = 4e-09, No Iterations 3
time step continuity errors : sum local = 3e-09, global = 2e-10, cumulative = 1e-4
smoothSolver:  Solving for k, Initial residual = 1e-04, Final residual = 1e-05, No Iterations 1
ExecutionTime = 0.5 s  ClockTime = 0 s
"""


def test_dictionaries(tmp_path):
    content = {"n": 3, "x": 0.1, "on": True, "v": [1.0, 2.0, 3.0], "sub": {"word": "Gauss linear"}}
    text.write(tmp_path, "system/some", content)
    written = (tmp_path / "system" / "some").read_text()
    for line in ("n 3;", "x 0.1;", "on yes;", "v (1 2 3);", "word Gauss linear;"):
        assert line in written
    assert written.count("{") == written.count("}") == 2


@pytest.mark.parametrize("kind", ["uniform", "text", "binary"])
def test_fields_are_read(tmp_path, kind):
    values = np.arange(6.0).reshape(2, 3) / 7
    path, size = tmp_path / "U", 2
    if kind == "uniform":
        values[:] = (1.5, 0, -2)
        path.write_text("FoamFile { format ascii; }\ninternalField   uniform (1.5 0 -2);\n")
    elif kind == "text":
        body = "\n".join(f"({a!r} {b!r} {c!r})" for a, b, c in values.tolist())
        start = "FoamFile { format ascii; }\ninternalField nonuniform List<vector>\n2\n(\n"
        path.write_text(f"{start}{body}\n)\n;\nboundaryField {{}}\n")
    else:
        start = b"FoamFile { format binary; }\ninternalField nonuniform List<vector>\n2\n("
        path.write_bytes(start + values.tobytes() + b")\n;\nboundaryField {}\n")
    assert np.array_equal(fields.read_field(path, size), values)


@pytest.mark.parametrize("cut", [0, 10, 75, 100, 108])
def test_truncated_fields_are_errors(tmp_path, cut):
    start = b"FoamFile { format binary; }\ninternalField nonuniform List<scalar>\n4\n("
    whole = start + np.arange(4.0).tobytes() + b")\n;\nboundaryField {}\n"
    path = tmp_path / "p"
    path.write_bytes(whole)
    assert fields.read_field(path, 4).tolist() == [0, 1, 2, 3]
    path.write_bytes(whole[:cut])
    with pytest.raises(DatasetError, match="truncated or not a field of 4 values"):
        fields.read_field(path, 4)
    path.write_bytes(whole)
    with pytest.raises(DatasetError, match="holds 4 values"):
        fields.read_field(path, 5)


def test_log():
    monitor = Monitor()
    ended = [monitor.line(line) for line in LOG.splitlines()]
    assert ended.count(True) == 1
    assert monitor.iteration == 7
    assert monitor.residuals == {"Ux": 2e-4, "p": 5e-3, "k": 1e-4}
    assert monitor.residual == 5e-4
    assert monitor.continuity == 3e-9
    assert not monitor.converged
    monitor.line("SIMPLE solution converged in 7 iterations")
    assert monitor.converged
    monitor.line("Time = 8")
    monitor.line("smoothSolver:  Solving for Ux, Initial residual = nan, Final residual = nan,")
    assert np.isnan(monitor.residual)


def test_sides():
    sides = Wind((0.6, -0.8), 0.05, 10).sides()
    assert sides == {"west": "in", "east": "out", "south": "out", "north": "in"}
    assert Wind((1.0, 1e-17), 0.05, 10).sides()["south"] == "along"
    assert Wind((1.0, 0.0), 0.05, 10).speed(np.array([10.0])) == pytest.approx([1.0])


def test_programs(tmp_path):
    lines = []
    ended = process.run(["sh", "-c", "echo one; echo two; exit 3"], tmp_path, on_line=lines.append)
    assert (lines, ended.code, ended.trapped) == (["one", "two"], 3, False)
    assert process.run(["sh", "-c", "kill -FPE $$"], tmp_path).trapped
    slow = process.run(["sh", "-c", "sleep 60 & wait"], tmp_path, on_tick=lambda: False)
    assert slow.code < 0
    assert slow.wall < 10


def test_missing_openfoam_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimulationError, match="apt install openfoam"):
        environment.require()
    (tmp_path / "mpirun").touch()


def test_archives(tmp_path):
    folder, path = tmp_path / "case", tmp_path / "store" / "x.checkpoint"
    (folder / "12").mkdir(parents=True)
    (folder / "12" / "U").write_bytes(b"field")
    (folder / "0.orig").mkdir()
    note = archive.Note("abc", 1.5, 2.5, 100, 0.5)
    archive.save(folder, path, note)
    back = tmp_path / "back"
    assert archive.load(path, back) == note
    assert (back / "12" / "U").read_bytes() == b"field"
    assert not (back / "0.orig").exists()
    for content in (b"", b"garbage", path.read_bytes()[:60]):
        path.write_bytes(content)
        assert archive.load(path, back) is None
        assert list(back.iterdir()) == []
    assert archive.load(tmp_path / "none", back) is None
