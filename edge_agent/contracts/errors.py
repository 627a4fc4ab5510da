"""Errors of the contracts and of the edge agent.

The tree::

    RbfError
    ├── InvalidInput        a value a caller sent: NaN, wrong shape, unknown name
    ├── InvalidConfig       a file a person wrote
    ├── InvalidReading      a sensor reading that cannot be used
    ├── ProtocolError       bytes that are not the protocol; carries the HTTP status
    ├── NotReady            no release is loaded yet
    ├── Overloaded          too many requests wait already
    ├── Unauthorised        the token is missing or wrong
    ├── ReleaseError        a release that cannot be served
    │   ├── DigestMismatch  bytes differ from what the manifest promises
    │   ├── DeltaError      a delta that does not make the model that it promises
    │   ├── Untrusted       signed metadata that must not be believed, or files it does not name
    │   ├── GoldenMismatch  the model does not reproduce its golden examples
    │   └── NoSuchRelease   a version that is not there
    ├── UpdateUnavailable   no release can be had now: network, disk, time; try again later
    ├── SpoolError          readings that cannot be kept now: disk failing or queue full
    ├── InvalidBatch        an observation batch that cannot be read or is not what it says
    ├── UpstreamError       a batch that could not be handed upstream
    ├── InvalidMonitors     a monitors file that cannot be used
    ├── NoSuchRequest       a call that the agent does not know
    ├── RequestExpired      a call too old to be told whether it was carried out
    ├── AgentUnreachable    nobody answers at the agent's address
    │   ├── EndpointOffline     the Globus Compute endpoint is off, or does not answer in time
    │   └── ServiceUnreachable  the Globus Compute service or its broker does not answer
    └── RemoteRefused       Globus Compute will not carry out a call
        ├── UnknownEndpoint     there is no such endpoint
        ├── FunctionRefused     the function is not on the endpoint's allow-list
        ├── ArgumentRefused     an argument is not plain JSON
        └── PayloadTooLarge     arguments or results beyond what the service carries

Every error has a one-line message that says what to do, and keyword data as attributes.
All of them pickle, so that they cross process and network boundaries unchanged.
"""

from __future__ import annotations

from typing import Any


class RbfError(Exception):
    """Base of all our errors.

    Parameters
    ----------
    message : str
        One line: what is wrong and what to do.
    **data
        What the error is about; readable as attributes and in ``.data``.
    """

    def __init__(self, message: str, **data: Any) -> None:  # noqa: ANN401 - any picklable datum
        super().__init__(message)
        self.message = message
        self.data = data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the data are the caller's
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        msg = f"{type(self).__name__} has no attribute {name!r}"
        raise AttributeError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.data))


def _rebuild(cls: type[RbfError], message: str, data: dict[str, Any]) -> RbfError:
    return cls(message, **data)


class InvalidInput(RbfError, ValueError):
    """A value that a caller sent cannot be used."""


class InvalidConfig(RbfError, ValueError):
    """A configuration file is wrong; ``.file`` and ``.field`` say where."""


class InvalidReading(RbfError, ValueError):
    """A sensor reading cannot be used."""


class ProtocolError(RbfError):
    """Bytes that are not the protocol, or break its limits; ``.status`` is the HTTP status."""


class NotReady(RbfError):
    """No release is loaded yet."""


class Overloaded(RbfError):
    """Too many requests wait already; try again later."""


class Unauthorised(RbfError):
    """The token that the agent asks for is missing or wrong."""


class ReleaseError(RbfError):
    """A release cannot be served."""


class DigestMismatch(ReleaseError):
    """A file's bytes differ from what its manifest promises."""


class DeltaError(ReleaseError):
    """A delta cannot be used; ``.reason`` tells why, and the full file is the way out."""


class Untrusted(ReleaseError):
    """Metadata that must not be believed, or a file that it does not name.

    ``.reason`` is ``signature``, ``version`` (below what was seen, or not what was promised),
    ``expired``, ``digest``, ``length``, ``format``, ``root``, ``extraneous`` or ``path``.
    """


class GoldenMismatch(ReleaseError):
    """A model does not reproduce its golden examples."""


class NoSuchRelease(ReleaseError):
    """There is no release of that version here."""


class UpdateUnavailable(RbfError, OSError):
    """No release can be had now; another try may help.

    ``.reason`` is ``unreachable``, ``missing``, ``status``, ``slow``, ``disk_full`` or ``stopped``.
    """


class SpoolError(RbfError):
    """Readings cannot be kept now; ``.reason`` is ``full``, ``disk`` or ``closed``."""


class InvalidBatch(RbfError, ValueError):
    """An observation batch cannot be read, or is not what its digest says."""


class UpstreamError(RbfError):
    """A batch could not be handed upstream; ``.refused`` tells whether trying again is useless."""


class InvalidMonitors(RbfError, ValueError):
    """A monitors file cannot be used."""


class AgentUnreachable(RbfError):
    """Nobody answers at the agent's address."""


class NoSuchRequest(RbfError):
    """The agent knows no call of that identifier."""


class RequestExpired(RbfError):
    """A call is too old: whether it was carried out, or with what outcome, is not kept."""


class EndpointOffline(AgentUnreachable):
    """The Globus Compute endpoint is off, or does not answer in time."""


class ServiceUnreachable(AgentUnreachable):
    """The Globus Compute service or its broker does not answer."""


class RemoteRefused(RbfError):
    """Globus Compute will not carry out a call; asking again is useless."""


class UnknownEndpoint(RemoteRefused):
    """There is no such Globus Compute endpoint, or it is not ours to use."""


class FunctionRefused(RemoteRefused):
    """The function is not on the endpoint's allow-list."""


class ArgumentRefused(RemoteRefused):
    """The endpoint takes JSON alone, and an argument is something else."""


class PayloadTooLarge(RemoteRefused):
    """Arguments or results are beyond what the service carries; ``.size`` and ``.limit``, bytes."""
