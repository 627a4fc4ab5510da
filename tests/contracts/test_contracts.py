import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import apps.errors
import workflows.errors
from edge_agent.contracts import errors
from edge_agent.contracts.errors import InvalidConfig, InvalidReading, RbfError
from edge_agent.contracts.model import Contract
from edge_agent.contracts.observation import UNITS, Reading, check_reading
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import Index, ReleaseRef, stored_path
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import replacing, write_bytes

SITE = Path("configs/sites/lindcove.toml")
ALL_ERRORS = [
    cls
    for module in (errors, apps.errors, workflows.errors)
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, RbfError)
]


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda c: c.__name__)
def test_every_error_carries_its_data_through_pickle(cls):
    error = pickle.loads(pickle.dumps(cls("broken", file="x.toml", count=3)))  # noqa: S301
    assert (type(error), str(error), error.file, error.count) == (cls, "broken", "x.toml", 3)
    with pytest.raises(AttributeError, match="nothing"):
        _ = error.nothing


def test_the_site_file_is_the_published_region():
    site = Site.from_toml(SITE)
    box = site.footprint
    assert (box.length_x, box.length_y, box.height) == (168.0, 74.0, 5.0)
    assert site.grid().shape == (5, 12, 24)
    # K = a/U + b fitted to Blevins' table at porosity 0.36, wire 0.25 mm, nu 1.5e-5: U = Re nu / d.
    screen = site.panels[0].screen
    for reynolds, loss in ((20, 8.7), (100, 4.7), (400, 3.5)):
        assert screen.loss_coefficient(reynolds * 1.5e-5 / 0.25e-3) == pytest.approx(loss, rel=0.06)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("height = 5.0", "height = -5.0", "footprint.height"),
        ('name = "lindcove"', 'name = "lindcove"\ncolour = "green"', "colour"),
        ('name = "east"', 'name = "west"', "panel names"),
        ("position = [32.7, 39.9, 4.5]", "position = [332.7, 39.9, 4.5]", "davis_in"),
        (
            "start = [0.0, 0.0]\nend = [168.0, 74.0]",
            "start = [168.0, 0.0]\nend = [168.0, 74.0]",
            "roof",
        ),
        ("[terrain]", "[terrain", "TOML"),
    ],
)
def test_a_wrong_site_file_names_the_field_in_one_line(tmp_path, old, new, field):
    text = SITE.read_text()
    assert old in text
    path = tmp_path / "site.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidConfig) as caught:
        Site.from_toml(path)
    assert field in str(caught.value) or field == caught.value.field
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(InvalidConfig, match="cannot be read"):
        Site.from_toml(tmp_path / "none.toml")


class _Pair(Contract):
    a: float
    b: tuple[str, ...]


@given(st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text(max_size=5)))
def test_digests_depend_on_content_alone(a, b):
    one = _Pair(a=a, b=tuple(b))
    other = _Pair.model_validate_json(one.model_dump_json())
    assert one.content_digest() == other.content_digest()
    assert _Pair(a=a, b=(*b, "x")).content_digest() != one.content_digest()


@pytest.mark.parametrize("quantity", UNITS)
def test_good_readings_pass(quantity):
    time = check_reading(Reading("2016-06-01T00:10:00", "mast", quantity, 5.0, UNITS[quantity]))
    assert time.minute == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantity": "colour"}, "quantity"),
        ({"unit": "km h-1"}, "unit"),
        ({"value": float("nan")}, "not_finite"),
        ({"value": float("inf")}, "not_finite"),
        ({"value": -1.0}, "range"),
        ({"value": 101.0}, "range"),
        ({"quantity": "wind_from_direction", "unit": "degree", "value": 361.0}, "range"),
        ({"time": "yesterday"}, "time"),
    ],
)
def test_bad_readings_are_refused_with_a_reason(change, reason):
    good = Reading("2016-06-01T00:10:00", "mast", "wind_speed", 5.0, "m s-1")
    with pytest.raises(InvalidReading) as caught:
        check_reading(good._replace(**change))
    assert caught.value.reason == reason


def test_stored_names_carry_the_digest():
    target = TargetFile(path="lindcove/3/model.onnx", sha256="ab" * 32, length=1)
    assert stored_path(target) == f"lindcove/3/{'ab' * 32}.model.onnx"
    ref = ReleaseRef(version=3, manifest=target)
    index = Index(name="lindcove", releases=(ref,), channels={"stable": 3})
    assert index.current("stable") == ref
    assert index.current("candidate") is None


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "sub" / "file"
    write_bytes(path, b"one")
    with pytest.raises(FileNotFoundError), replacing(path) as partial:
        (partial / "not a folder").stat()
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


#: Other people's packages are imported once for all: they take a second each time.
IMPORT_ALONE = """
import importlib, os, sys
import onnx, parsl, pydantic, scipy.stats, torch, tuf.ngclient, xarray

names, running, bad = sys.argv[1:], {}, []
while names or running:
    if names and len(running) < os.cpu_count():
        name = names.pop()
        pid = os.fork()
        if pid == 0:
            importlib.import_module(name)
            os._exit(0)
        running[pid] = name
    else:
        pid, status = os.wait()
        name = running.pop(pid)
        bad += [name] if status else []
assert not bad, bad
"""


def test_every_module_imports_alone():
    """No module depends on another having been imported first, and none does work on import."""
    names = [
        ".".join(path.with_suffix("").parts)
        for package in ("apps", "configs", "edge_agent", "workflows")
        for path in Path(package).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, *names], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
