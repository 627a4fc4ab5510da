"""Carries calls out, each once: what is known already is answered from the journal.

One thread looks up, predicts and answers; commands that change what serves are carried out, and
written down, on the agent's own thread for them, so that nothing comes between the two.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.calls.contract import CHANGING, Call, Outcome, failure_of, prediction_json
from edge_agent.calls.journal import CallJournal, CallRow
from edge_agent.calls.settle import open_journal, standing_of
from edge_agent.columns import as_rows
from edge_agent.contracts.errors import InvalidInput, Overloaded, RbfError, SpoolError

log = structlog.get_logger(__name__)

#: Calls waiting or under way at once; those beyond it are refused.
MAX_WAITING = 64


class _Job(NamedTuple):
    request_id: str
    call: Call
    by: str
    done: Future[Outcome]


class Calls:
    """The calls of one agent.

    Parameters
    ----------
    agent : EdgeAgent
        Started.

    Raises
    ------
    SpoolError
        If the journal cannot be opened, or holds calls of which nobody knows what became.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent
        self.journal: CallJournal = open_journal(agent.config)
        if self.journal.begun():
            self.journal.close()
            msg = "calls of an earlier run are not settled; start the agent again"
            raise SpoolError(msg, reason="unsettled")
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Call, Future[Outcome]]] = {}
        self._thread: threading.Thread | None = None

    def ask(self, request_id: str, call: Call, *, by: str) -> Future[Outcome]:
        """Carry a call out, or find what came of it; the future gives its outcome.

        The future raises what `CallJournal.begin` and `CallJournal.end` do.

        Parameters
        ----------
        request_id : str
        call : Call
        by : str
            Who asks, for the audit record.

        Raises
        ------
        InvalidInput
            If another call of that identifier is under way.
        Overloaded
            If too many are.
        """
        with self._lock:
            found = self._running.get(request_id)
            if found is not None:
                if found[0].digest() != call.digest():
                    msg = f"the identifier {request_id} stands for another call; make a new one"
                    raise InvalidInput(msg, name="id", request_id=request_id)
                return found[1]
            if len(self._running) >= MAX_WAITING:
                msg = f"{MAX_WAITING} calls wait already; try again later"
                raise Overloaded(msg)
            done: Future[Outcome] = Future()
            self._running[request_id] = (call, done)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rbf-calls", daemon=True)
                self._thread.start()
        self._queue.put(_Job(request_id, call, by, done))
        return done

    def find(self, request_id: str) -> CallRow:
        """Return a call; raises `NoSuchRequest`."""
        return self.journal.find(request_id)

    def close(self) -> None:
        """Finish what is under way on this thread, and close the journal."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self.journal.close()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                self._carry_out(job)
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                self._answer(job, error)

    def _carry_out(self, job: _Job) -> None:
        agent, command = self._agent, job.call.command
        if command == "predict":
            self._answer(job, self._recorded(job, lambda: self._predict(job.call)))
        elif command == "pull":
            self._pull(job)
        else:
            # Nothing else that changes what serves comes between beginning and end.
            work = self._command(job.call)

            def change() -> Outcome:
                return self._recorded(job, lambda: {"active": work(by=job.by).result()})

            agent.alone(change).add_done_callback(partial(self._done, job))

    def _done(self, job: _Job, future: Future[Outcome]) -> None:
        self._answer(job, future.exception() or future.result())

    def _command(self, call: Call) -> Callable[..., Future[Any]]:
        agent = self._agent
        if call.command in ("promote", "pin"):
            version = call.arguments.get("version")
            if type(version) is not int:
                msg = f"version {version!r} is not a whole number"
                raise InvalidInput(msg, name="version")
            return partial(agent.promote, version, pin=call.command == "pin")
        commands: dict[str, Callable[..., Future[Any]]] = {
            "rollback": agent.rollback,
            "unpin": agent.unpin,
            "hold": agent.hold,
            "unhold": partial(agent.hold, hold=False),
        }
        return commands[call.command]

    def _pull(self, job: _Job) -> None:
        # Looking again does no harm: whatever a crash leaves of it, asking again looks again.
        known = self._begin(job)
        if known is not None:
            self._answer(job, known)
            return

        def looked(future: Future[int | None]) -> None:
            try:
                self._answer(job, self._ended(job, lambda: {"active": future.result()}))
            except RbfError as error:
                self._answer(job, error)

        self._agent.pull(by=job.by).add_done_callback(looked)

    def _predict(self, call: Call) -> dict[str, Any]:
        arguments = call.arguments
        version = arguments.get("version")
        if version is not None and type(version) is not int:
            msg = f"version {version!r} is not a whole number"
            raise InvalidInput(msg, name="version")
        slot = self._agent.slot(version)
        given = arguments.get("columns")
        if not isinstance(given, list | None):
            msg = f"columns {given!r} are not a list of names"
            raise InvalidInput(msg, name="columns")
        inputs, limit = arguments.get("inputs", []), self._agent.config.max_batch
        rows = as_rows(inputs, slot.columns, limit, given)
        return prediction_json(self._agent.predict_rows(slot, rows))

    def _recorded(self, job: _Job, work: Callable[[], dict[str, Any]]) -> Outcome:
        """Begin, carry out and end a call on this thread; or return what is known of it."""
        return self._begin(job) or self._ended(job, work)

    def _begin(self, job: _Job) -> Outcome | None:
        standing = standing_of(self._agent.config.state) if job.call.command in CHANGING else None
        now = self._agent.clock.now()
        return self.journal.begin(job.request_id, job.call, standing=standing, now=now)

    def _ended(self, job: _Job, work: Callable[[], dict[str, Any]]) -> Outcome:
        try:
            outcome = Outcome(result=work())
        except Exception as error:  # whatever it is, it is the answer
            if not isinstance(error, RbfError):
                log.exception("a call failed", command=job.call.command)
            outcome = Outcome(failure=failure_of(error))
        self.journal.end(job.request_id, outcome, now=self._agent.clock.now())
        return outcome

    def _answer(self, job: _Job, answer: Outcome | BaseException) -> None:
        with self._lock:
            del self._running[job.request_id]
        if isinstance(answer, Outcome):
            job.done.set_result(answer)
        else:
            job.done.set_exception(answer)
