"""The Globus Compute SDK as `GlobusTransport` needs it: a fresh Executor whenever one is spoilt.

An Executor is of no use any more after any failed submission, and its futures may never resolve
after a cut. So nobody waits for one for ever: it is given up, with whatever it was waiting for.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent.client.limits import RateLimit
from edge_agent.contracts.errors import (
    ArgumentRefused,
    EndpointOffline,
    FunctionRefused,
    InvalidConfig,
    PayloadTooLarge,
    RbfError,
    RemoteRefused,
    ServiceUnreachable,
    Unauthorised,
    UnknownEndpoint,
)
from edge_agent.remote import FUNCTIONS, registered_name

if TYPE_CHECKING:
    from globus_compute_sdk import Client, Executor

T = TypeVar("T")

_live: weakref.WeakSet[Compute] = weakref.WeakSet()
_janitor: threading.Thread | None = None


class Compute:
    """One endpoint.

    Parameters
    ----------
    endpoint : str
        Its identifier.
    functions : mapping, optional
        Name to identifier of the registered functions; looked up in the allow-list by default.

    Raises
    ------
    InvalidConfig
        If the identifier is none, or the SDK is not installed.
    """

    def __init__(self, endpoint: str, functions: Mapping[str, str] | None) -> None:
        try:
            self.endpoint = str(uuid.UUID(endpoint))
        except ValueError as error:
            msg = f"globus:{endpoint}: {endpoint!r} is no endpoint identifier (a UUID)"
            raise InvalidConfig(msg, field="address") from error
        try:
            import globus_compute_sdk  # noqa: F401 - is it there?
        except ImportError as error:
            msg = "Globus Compute is not installed here: pip install 'reverse-backfill[globus]'"
            raise InvalidConfig(msg, field="address") from error
        self.limit = RateLimit()
        self._functions: dict[str, str] | None = None if functions is None else dict(functions)
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._executor: Executor | None = None
        _live.add(self)
        _watch_exit()

    def submit(
        self, name: str, request: Mapping[str, Any], timeout: float
    ) -> tuple[Executor, Future[Any]]:
        """Send one request to a function; return the Executor that has it, and its future.

        Parameters
        ----------
        name : str
        request : mapping
            JSON values.
        timeout : float, s
            For what has to be asked of the service before.

        Raises
        ------
        RemoteRefused, Unauthorised
            If asking again is useless.
        ServiceUnreachable
            If the service does not answer now.
        """
        with self._lock:
            function, executor = (self._functions or {}).get(name), self._executor
        try:
            if function is None or executor is None:
                function, executor = self._bounded(lambda: self._prepare(name), timeout)
            return executor, executor.submit_to_registered_function(function, (request,))
        except RbfError:
            raise
        except Exception as error:  # the SDK's, whatever they are
            if executor is not None:
                self.give_up(executor)
            raise typed(error, self.endpoint, name) from error

    def give_up(self, executor: Executor) -> None:
        """Let go of an Executor; the next call gets a fresh one, with a client of its own."""
        with self._lock:
            if self._executor is executor:
                self._executor = self._client = None
        _abandon(executor)

    def online(self, timeout: float) -> bool | None:
        """Whether the service thinks that the endpoint is there; none if it cannot be asked."""

        def ask() -> bool:
            found = self._service().get_endpoint_status(self.endpoint)
            return bool(found.get("status") == "online")

        try:
            return self._bounded(ask, timeout)
        except Exception:  # noqa: BLE001 - a hint for a message
            return None

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            _abandon(executor)

    def _bounded(self, work: Callable[[], T], timeout: float) -> T:
        """Run `work`, which asks the service; its own time limits add up to minutes."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                done.set_exception(error)

        threading.Thread(target=run, name="rbf-globus", daemon=True).start()
        try:
            return done.result(timeout)
        except TimeoutError as error:
            with self._lock:
                self._client = None  # its lock is held for as long as it hangs
            msg = f"Globus Compute does not answer within {timeout:.0f} s"
            raise ServiceUnreachable(msg, endpoint=self.endpoint) from error

    def _prepare(self, name: str) -> tuple[str, Executor]:
        function = self._function(name)
        made = self._make_executor()
        with self._lock:
            if self._executor is None:
                self._executor = made
                return function, made
            executor = self._executor
        _abandon(made)
        return function, executor

    def _service(self) -> Client:
        with self._lock:
            if self._client is not None:
                return self._client
        made = _make_client(self.limit)
        with self._lock:
            if self._client is None:
                self._client = made
            return self._client

    def _make_executor(self) -> Executor:
        from globus_compute_sdk import Executor
        from globus_compute_sdk.serialize import ComputeSerializer, JSONData

        as_json = JSONData()  # type: ignore[no-untyped-call]
        return Executor(
            endpoint_id=self.endpoint,
            client=self._service(),
            # A task group of its own, and so a connection of its own: the one that the SDK would
            # share may be a dead one.
            task_group_id=uuid.uuid4(),
            # `RateLimit` holds back; the SDK's default lets one call go every 4 s.
            api_burst_limit=8,
            api_burst_window_s=1,
            serializer=ComputeSerializer(strategy_data=as_json),
            result_serializers=[as_json],
        )

    def _function(self, name: str) -> str:
        known = self._functions
        if known is None:
            known = self._functions = self._look_up()
        if name not in known:
            msg = (
                f"{registered_name(name)} is not on the allow-list of endpoint {self.endpoint}; "
                "its owner allows it with: edge-agent globus register"
            )
            raise FunctionRefused(msg, function=name, endpoint=self.endpoint)
        return known[name]

    def _look_up(self) -> dict[str, str]:
        client = self._service()
        self.limit.take()
        allowed = client.get_allowed_functions(self.endpoint)
        names = {registered_name(name): name for name in FUNCTIONS}
        found: dict[str, str] = {}
        for identifier in allowed.get("functions") or ():
            self.limit.take()
            about = client.get_function(identifier)
            name = names.get(about.get("function_name", ""))
            if name is not None:
                found[name] = str(identifier)
        return found


def typed(error: BaseException, endpoint: str, name: str) -> RbfError:
    """Return our error for one of the SDK's.

    Parameters
    ----------
    error : Exception
    endpoint : str
        Identifier.
    name : str
        Of the function.
    """
    text = str(error).strip()
    last = text.splitlines()[-1].strip() if text else type(error).__name__
    status = getattr(error, "http_status", None)
    data = {"endpoint": endpoint, "function": name}
    if status is not None:
        body = getattr(error, "raw_json", None) or {}
        return _of_status(int(status), str(body.get("reason") or last), data)
    if type(error).__name__ == "TaskExecutionFailed":
        return _of_task(text, last, data)
    msg = f"Globus Compute does not answer: {type(error).__name__}: {last}"
    return ServiceUnreachable(msg, **data)


def _of_status(status: int, text: str, data: dict[str, str]) -> RbfError:
    about_function = "function" in text.lower()
    if status == 401:
        return Unauthorised(f"Globus Compute wants a login: {text}", **data)
    if status == 413:
        return PayloadTooLarge(f"Globus Compute refuses so much at once: {text}", **data)
    if status in (403, 404) and about_function:
        msg = f"endpoint {data['endpoint']} does not allow {data['function']}: {text}"
        return FunctionRefused(msg, **data)
    if status in (403, 404):
        msg = f"there is no endpoint {data['endpoint']}, or it is not yours to use: {text}"
        return UnknownEndpoint(msg, **data)
    if 400 <= status < 500 and status != 429:
        return RemoteRefused(f"Globus Compute refuses the call: {text}", **data)
    return ServiceUnreachable(f"Globus Compute does not answer: {status} {text}", **data)


def _of_task(text: str, last: str, data: dict[str, str]) -> RbfError:
    if "not permitted" in text:
        msg = f"endpoint {data['endpoint']} does not allow {data['function']}: {last}"
        return FunctionRefused(msg, **data)
    if "eserializ" in text:
        return ArgumentRefused(f"the endpoint takes JSON arguments alone: {last}", **data)
    if "MaxResultSizeExceeded" in text:
        return PayloadTooLarge(f"the result is more than Globus Compute carries: {last}", **data)
    if "ModuleNotFoundError" in text or "ImportError" in text:
        msg = f"the endpoint's environment lacks the edge agent's package: {last}"
        return RemoteRefused(msg, **data)
    # Anything else may pass: an endpoint that starts, or has lost its worker.
    return EndpointOffline(f"the endpoint could not carry the call out: {last}", **data)


def _make_client(limit: RateLimit) -> Client:
    from globus_compute_sdk import Client

    class Limited(Client):
        """Waits before each request, as the service asks."""

        def batch_run(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the SDK's own
            limit.take()
            return super().batch_run(*args, **kwargs)

        def get_endpoint_status(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
            limit.take()
            return super().get_endpoint_status(*args, **kwargs)

        def _log_version_mismatch(self, _details: object) -> None:
            """Say nothing of other versions of Python: only JSON and source text travel."""

    return Limited()


def _abandon(executor: Executor) -> None:
    """Cancel what an Executor waits for, and end its threads."""
    from globus_compute_sdk.sdk import executor as internals

    executor.shutdown(wait=False, cancel_futures=True)  # type: ignore[no-untyped-call]
    # There is no public way to end the thread that waits for results while some are missing; left
    # alone it keeps the interpreter from ending.
    with contextlib.suppress(AttributeError, KeyError):
        watcher = internals._RESULT_WATCHERS.get(executor.task_group_id)
        if watcher is not None:
            watcher.shutdown(wait=False, cancel_futures=True)  # type: ignore[no-untyped-call]


def _watch_exit() -> None:
    global _janitor  # noqa: PLW0603 - one for the process
    if _janitor is not None and _janitor.is_alive():
        return

    def sweep() -> None:
        # The interpreter waits for the SDK's threads, and those for results that may never come.
        threading.main_thread().join()
        for compute in list(_live):
            compute.close()

    _janitor = threading.Thread(target=sweep, name="rbf-globus-exit")
    _janitor.start()
