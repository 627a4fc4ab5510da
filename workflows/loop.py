"""The asynchronous DAG: simulate -> train -> validate -> publish, no barrier between stages.

A thin shell: `workflows.decisions` decides, `workflows.ledger` remembers, the stages work. What is
decided is in the ledger before it is acted on; what comes back is in the ledger before anything
follows from it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from apps.errors import OutOfTime, SimulationError
from apps.parsl_apps import Stages
from apps.publish import PublishResult
from apps.scenarios import Scenario
from apps.simulate import SimulateResult, SimulateTask
from apps.train import TrainResult, TrainTask
from apps.validate import ValidateResult
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.site import Site
from workflows.backfill.planner import Backlog
from workflows.backlog import training_estimate, work_left
from workflows.config import Campaign
from workflows.decisions import REFERENCE, Finish, Plan, Standing, Tally, Train, decide
from workflows.draw import Draw
from workflows.errors import CampaignError
from workflows.fidelity_choice import pairs_wanted
from workflows.flight import Flight, Job
from workflows.following import moved
from workflows.layout import RunFolder
from workflows.ledger import ROLES, CandidateRow, CandidateState, Ledger, Role
from workflows.machine import Machine
from workflows.state_keeper import StateKeeper
from workflows.tasks import (
    is_dear,
    levels,
    made_with,
    pairs_of,
    publication_task,
    required,
    simulation_name,
    state_of,
    training_task,
    validation_task,
)

#: A task that takes its worker down so often is recorded as a failure; one whose disk fails, too.
#: A block that ends under its tasks counts for none of them.
ATTEMPTS = 3

#: Run times that the planner is told are over so many of the latest tasks.
RECENT = 30

log = structlog.get_logger()


class CampaignLoop:
    """Drives one campaign to its end.

    Parameters
    ----------
    campaign, site, folder, ledger
        What to do, where, and what is known already.
    stages : Stages
        The four stages.
    machine : Machine
        Where tasks run. For each that runs one more waits: enough to keep every worker busy, few
        enough that the next scenarios still follow the latest weather.
    on_tick : callable
        Called several times a second; stores new readings, keeps the agent up, shows progress.
    on_event : callable
        Told what the machine did: kind, data.
    """

    def __init__(
        self,
        campaign: Campaign,
        site: Site,
        folder: RunFolder,
        ledger: Ledger,
        stages: Stages,
        *,
        machine: Machine,
        on_tick: Callable[[CampaignLoop], None] = lambda _loop: None,
        on_event: Callable[[str, dict[str, Any]], None] = lambda _kind, _data: None,
    ) -> None:
        self.campaign = campaign
        self.site = site
        self.ledger = ledger
        self._folder = folder
        self._stages = stages
        self._machine = machine
        self._on_tick = on_tick
        self._on_event = on_event
        self.keeper = StateKeeper(campaign, site, ledger)
        self._draw = Draw(campaign, site, ledger, lambda: self.keeper.state)
        self._changed_at: str | None = None
        #: What waits for a worker: the cheap simulator's and the dearer one's.
        self._pending: dict[bool, deque[tuple[str, Scenario]]] = {False: deque(), True: deque()}
        self._flight = Flight(stages)
        self._task_seconds: deque[float] = deque(maxlen=RECENT)
        self._started = time.monotonic()
        self.on_published: Callable[[int], None] = lambda _v: None  # told of each release

    @property
    def running(self) -> dict[str, int]:
        """Cases or candidates that workers are on, by stage.

        Parsl does not tell what has started; candidates go first, then tasks in order.
        """
        submitted = self._flight.submitted
        stages = [job.stage for job in submitted]
        workers = self._machine.slots()
        counts = {s: stages.count(s) for s in ("publish", "validate", "train") if s in stages}
        free = workers - sum(counts.values())
        simulations = [len(job.digests) for job in submitted if job.stage == "simulate"]
        return counts | {"simulate": sum(simulations[: max(0, free)])}

    def tallies(self) -> dict[Role, Tally]:
        """Return the simulations by role and state."""
        rows = [(row.role, row.state) for row in self.ledger.simulations()]
        return {
            role: Tally(*(rows.count((role, state)) for state in ("planned", "done", "failed")))
            for role in ROLES
        }

    @property
    def _depth(self) -> int:
        """Simulation tasks in flight at most; some before the machine has a single worker."""
        return 2 * max(1, self._machine.slots())

    def backlog(self) -> Backlog:
        """Return the work that is left, that in flight included."""
        candidate = any(job.stage != "simulate" for job in self._flight.jobs)
        return work_left(
            self.campaign,
            self.tallies(),
            self._task_seconds,
            out_of_time=self._out_of_time(),
            training=training_estimate(self.ledger.candidates()) if candidate else 0.0,
        )

    def _out_of_time(self) -> bool:
        return time.monotonic() - self._started >= self.campaign.budget.wall_seconds

    def run(self) -> None:
        """Go on until the budget is spent and everything that follows from it is done.

        Raises
        ------
        CampaignError
            If the campaign cannot reach its end.
        """
        self._recover()
        while True:
            self.keeper.look()
            actions = decide(self.campaign, self._standing())
            for action in actions:
                if isinstance(action, Plan):
                    self._plan(action)
                elif isinstance(action, Train):
                    self._train()
                elif isinstance(action, Finish) and not self._flight.jobs:
                    return
            self._submit_pending()
            self._machine.set_backlog(self.backlog())
            self._collect()
            self.note(self._machine.take_events())
            self._on_tick(self)

    def _recover(self) -> None:
        for row in self.ledger.simulations():
            if row.state == "planned":
                self._pending[is_dear(self.campaign, row.role)].append((row.digest, row.scenario))
        for candidate in self.ledger.candidates():
            self._advance(candidate)
        self.ledger.event("loop_started", pending=self._waiting())

    def _standing(self) -> Standing:
        cases = self._flight.cases
        candidates = self.ledger.candidates()
        return Standing(
            tallies=self.tallies(),
            room=self._depth * self.campaign.resources.batch - cases - self._waiting(),
            tears=self._draw.tears if self.campaign.steering.tears else 0,
            last_trained=len(candidates[-1].task["digests"]) if candidates else 0,
            candidate_open=any(c.state in ("training", "trained", "accepted") for c in candidates),
            out_of_time=self._out_of_time(),
            pairs=self._pairs_wanted(candidates),
            last_pairs=pairs_of(candidates[-1]) if candidates else 0,
            state_moved=self._state_moved(candidates),
            following=self.keeper.hears and not self._out_of_time(),
        )

    def _pairs_wanted(self, candidates: list[CandidateRow]) -> int:
        reference = self.campaign.reference
        if not self.campaign.corrected or reference.most is None:
            return 0
        return pairs_wanted(*levels(self.ledger.simulations(), candidates), reference.most)

    def _state_moved(self, candidates: list[CandidateRow]) -> bool:
        if not candidates or not self.keeper.follows:
            return False
        step = self.campaign.following.step
        return moved(self.keeper.state, state_of(candidates[-1]), step)

    def _plan(self, action: Plan) -> None:
        drawn = self._draw.next(action.role, action.count)
        self._write_down(action.role, drawn.planned, drawn.newest)
        if self._draw.changed_at != self._changed_at:
            self._changed_at = self._draw.changed_at
            self.ledger.event("weather_changed", at=self._changed_at)
        if action.role in REFERENCE:
            # The same scenarios with the cheap solver: pairs, to learn and judge the correction.
            first = self.ledger.next_sequence("paired")
            twins = [
                (first + i, simulation_name(self.campaign, self.site, scenario, "paired"), scenario)
                for i, (_, _, scenario) in enumerate(drawn.planned)
            ]
            known = {row.digest for row in self.ledger.simulations()}
            self._write_down("paired", [t for t in twins if t[1] not in known], None)

    def _write_down(
        self, role: Role, planned: list[tuple[int, str, Scenario]], newest: str | None
    ) -> None:
        self.ledger.plan(role, planned, newest)
        dear = is_dear(self.campaign, role)
        self._pending[dear].extend((digest, s) for _, digest, s in planned)

    def _submit_pending(self) -> None:
        self._flight.submit_due()
        for dear, pending in sorted(self._pending.items(), reverse=True):
            role: Role = "reference" if dear else "training"
            fidelity, resources = made_with(self.campaign, role)
            while pending:
                if self._flight.simulations >= self._depth:
                    return
                cases = [pending.popleft() for _ in range(min(resources.batch, len(pending)))]
                digests = tuple(digest for digest, _ in cases)
                name = hashlib.sha256("".join(digests).encode()).hexdigest()
                task = SimulateTask(
                    site=self.site,
                    scenarios=tuple(scenario for _, scenario in cases),
                    fidelity=fidelity,
                    resources=resources,
                    store=str(self._folder.simulations),
                    checkpoint=str(self._folder.checkpoints / name),
                )
                self._flight.submit(Job("simulate", task, digests=digests))

    def _waiting(self) -> int:
        return sum(len(pending) for pending in self._pending.values())

    def _collect(self) -> None:
        for job, future in self._flight.ended():
            error = future.exception()
            if error is None:
                failpoint(f"campaign.{job.stage}.returned")
                getattr(self, f"_{job.stage}_ended")(job, future.result())
            else:
                self._broken(job, error)

    def note(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Write down what the machine did."""
        for kind, data in events:
            self.ledger.event(kind, **data)
            log.info(kind, **data)
            self._on_event(kind, data)

    def _broken(self, job: Job, error: BaseException) -> None:
        if isinstance(error, SimulationError):  # the set-up, not the flow: none would run
            raise CampaignError(str(error), stage=job.stage) from error
        if isinstance(error, OutOfTime):
            self.ledger.event("task_deferred", stage=job.stage, reason=str(error))
            self._flight.again(job)
            return
        lost = self._stages.lost(error)
        blameless = lost and self._machine.blameless(error)
        self.ledger.event(
            "task_lost" if lost else "task_error",
            stage=job.stage,
            attempt=job.attempts,
            blameless=blameless,
            error=f"{type(error).__name__}: {error}",
        )
        log.warning("task did not end well", stage=job.stage, error=str(error), lost=lost)
        if blameless:
            self._flight.again(job)
            return
        if (lost or isinstance(error, OSError)) and job.attempts < ATTEMPTS:
            job.attempts += 1
            self._flight.submit(job)
            return
        reason = "worker_lost" if lost else type(error).__name__
        for digest in job.digests:
            self.ledger.fail(digest, reason)
        if job.number is not None:
            self.ledger.update_candidate(job.number, "failed", reason=f"{reason}: {error}")

    def _simulate_ended(self, job: Job, result: SimulateResult) -> None:
        for outcome in result.outcomes:
            if outcome.status == "finished":
                self.ledger.finish(outcome.digest, outcome.seconds)
            elif outcome.status == "failed":
                self.ledger.fail(outcome.digest, outcome.reason or "unknown")
        if any(outcome.status == "unfinished" for outcome in result.outcomes):
            # The same cases again: whichever block takes them goes on from their checkpoint.
            progress = [round(outcome.progress, 3) for outcome in result.outcomes]
            self.ledger.event("task_unfinished", stage=job.stage, progress=progress)
            self._flight.again(Job("simulate", job.task, digests=job.digests))
            return
        seconds = sum(o.seconds for o in result.outcomes if o.status == "finished")
        cheap = job.task.fidelity == self.campaign.fidelity
        if seconds > 0 and cheap:  # zero: their files were there already
            self._task_seconds.append(seconds)

    def _train(self) -> None:
        state = self.keeper.state
        task = training_task(self.campaign, self.site, self._folder, self.ledger, state)
        self.ledger.add_candidate(task.model_dump(mode="json"))
        self._advance(self.ledger.candidates()[-1])

    def _advance(self, candidate: CandidateRow) -> None:
        """Submit the next stage of a candidate that has one."""
        if candidate.state == "training":
            task = TrainTask.model_validate(candidate.task)
            self._flight.submit(Job("train", task, number=candidate.number))
        elif candidate.state == "trained":
            check = validation_task(self.campaign, self.site, self._folder, self.ledger, candidate)
            self._flight.submit(Job("validate", check, number=candidate.number))
        elif candidate.state == "accepted":
            created = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.ledger.reserve_version(candidate.number, created)
            release = publication_task(self.site, self._folder, self._candidate(candidate.number))
            self._flight.submit(Job("publish", release, number=candidate.number))

    def _train_ended(self, job: Job, result: TrainResult) -> None:
        self._move(
            job,
            "trained",
            folder=result.folder,
            train_seconds=result.seconds,
            left_out=result.left_out,
            correction_left_out=result.correction_left_out,
        )

    def _validate_ended(self, job: Job, result: ValidateResult) -> None:
        verdict = result.verdict
        self._move(
            job,
            "accepted" if verdict.accepted else "refused",
            verdict=verdict.model_dump(mode="json"),
            scores={name: s.model_dump(mode="json") for name, s in result.scores.items()},
            serving=result.serving.model_dump(mode="json"),
        )

    def _publish_ended(self, job: Job, result: PublishResult) -> None:
        at = result.published_at or time.time()
        self._move(job, "published", version=result.version, published_at=at)
        self.ledger.event("published", version=result.version)
        self.on_published(result.version)

    def _move(self, job: Job, state: CandidateState, **known: Any) -> None:  # noqa: ANN401 - JSON
        number = required(job.number)
        self.ledger.update_candidate(number, state, **known)
        self._advance(self._candidate(number))

    def _candidate(self, number: int) -> CandidateRow:
        return next(c for c in self.ledger.candidates() if c.number == number)
