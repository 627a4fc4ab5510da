"""The real endpoint and SDK, a real RabbitMQ, and a stand-in for the hosted service."""

import os

import pytest

from .stack import CREDENTIALS, Stack, missing


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """The stack, for all tests; each leaves it whole."""
    reason = missing()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("globus")
    os.environ |= CREDENTIALS | {"GLOBUS_COMPUTE_USER_DIR": str(folder / "client")}
    stack = Stack(folder)
    try:
        stack.prepare()
        yield stack
    finally:
        stack.close()
