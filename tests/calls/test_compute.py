"""The SDK's errors as ours."""

from concurrent.futures import CancelledError

import pytest

from edge_agent.client.compute import Compute, typed
from edge_agent.client.globus import GlobusTransport
from edge_agent.contracts.errors import (
    AgentUnreachable,
    ArgumentRefused,
    EndpointOffline,
    FunctionRefused,
    InvalidConfig,
    Overloaded,
    PayloadTooLarge,
    RemoteRefused,
    ServiceUnreachable,
    Unauthorised,
    UnknownEndpoint,
)

ENDPOINT = "bbbbbbbb-0000-4000-8000-000000000001"


class ApiError(Exception):
    def __init__(self, status, reason):
        super().__init__(f"('GET', 'http://x/v3/endpoints/y/allowed_functions', {status})")
        self.http_status = status
        self.raw_json = {"reason": reason}


class TaskExecutionFailed(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ApiError(401, "log in"), Unauthorised),
        (ApiError(403, "Function f not permitted on endpoint e"), FunctionRefused),
        (ApiError(404, "Function f not found"), FunctionRefused),
        (ApiError(403, "Endpoint access forbidden"), UnknownEndpoint),
        (ApiError(404, "Endpoint e not found"), UnknownEndpoint),
        (ApiError(413, "too large"), PayloadTooLarge),
        (ApiError(400, "malformed"), RemoteRefused),
        (ApiError(429, "slow down"), ServiceUnreachable),
        (ApiError(503, "busy"), ServiceUnreachable),
        (TaskExecutionFailed("Function f not permitted on endpoint e"), FunctionRefused),
        (TaskExecutionFailed("DeserializationError: no"), ArgumentRefused),
        (TaskExecutionFailed("MaxResultSizeExceeded(1, 2)"), PayloadTooLarge),
        (TaskExecutionFailed("ModuleNotFoundError: edge_agent"), RemoteRefused),
        (TaskExecutionFailed("endpoint failed to start"), EndpointOffline),
        (ConnectionError("refused"), ServiceUnreachable),
        (CancelledError(), ServiceUnreachable),
        (RuntimeError("is shutdown"), ServiceUnreachable),
    ],
)
def test_each_has_its_kind(error, kind):
    found = typed(error, ENDPOINT, "status")
    assert type(found) is kind
    assert "\n" not in found.message
    assert found.endpoint == ENDPOINT
    # Whether asking again may help is in the tree.
    assert isinstance(found, AgentUnreachable) == (kind in (EndpointOffline, ServiceUnreachable))


def test_an_identifier_is_a_uuid():
    with pytest.raises(InvalidConfig, match="UUID"):
        Compute("mine", None)


def test_a_full_window_is_said_before_anything_is_sent():
    transport = GlobusTransport(ENDPOINT, 1.0, {"status": ENDPOINT})
    for _ in range(20):
        transport._compute.limit.take()
    with pytest.raises(Overloaded, match="20 requests in 10 s"):
        transport.status()
    transport.close()
