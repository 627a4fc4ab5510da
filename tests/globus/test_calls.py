"""Calls through the real endpoint: the same interface, the same answers, each carried out once."""

import numpy as np
import pytest

from edge_agent.client import RemoteAgent

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}


@pytest.fixture(scope="module")
def agent(stack):
    with stack.agent() as agent:
        yield agent


def test_predicts_as_the_socket_does(stack, agent):
    found = agent.predict(WEST)
    with RemoteAgent(stack.device.socket) as direct:
        expected = direct.predict(WEST)
    np.testing.assert_array_equal(found.wind, expected.wind)
