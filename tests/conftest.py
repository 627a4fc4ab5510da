"""Settings that every test shares."""

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a busy machine is no failure. CI draws the same examples every time.
settings.register_profile(
    "project",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect with the garbage collector off.

    CPython 3.11 can fail to parse a file that is collected over ("AST constructor recursion depth
    mismatch", gh-106905), and pytest parses every test anew where no bytecode is written.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
