"""One run of a campaign: the agent beside the loop, progress, and the figures at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.site import Site
from workflows.config import Campaign
from workflows.edge import EdgeProcess, wait_until
from workflows.errors import ObservationError
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.observations import ObservationStore, take_folder
from workflows.releases import Freshness, prepare
from workflows.service import ReplayLog, service

if TYPE_CHECKING:
    from parsl.config import Config

    from workflows.loop import CampaignLoop
    from workflows.view import Snapshot, View

#: Readings taken from the store at one time, and how often to look, s.
PAGE = 1000
POLL_SECONDS = 0.5

#: How long the end of a campaign waits for the agent to serve the last release, s.
SERVE_SECONDS = 20.0

#: A machine module's function: folder for Parsl's logs -> fresh ``parsl.Config``.
MakeConfig = Callable[[Path], "Config"]


class Session:
    """One run of the program on a campaign.

    Parameters
    ----------
    campaign, site, folder, ledger
        What to do, where, and what is known already.
    """

    def __init__(self, campaign: Campaign, site: Site, folder: RunFolder, ledger: Ledger) -> None:
        self._campaign = campaign
        self._site = site
        self._folder = folder
        self._ledger = ledger
        self._freshness = Freshness(folder)
        self._started = time.monotonic()
        self._sequence = 0
        self._agent_status: dict[str, Any] | None = None
        self._agent_seen = 0.0
        self._told = 0

    def run(self, record: Path, make_config: MakeConfig, *, plain: bool) -> None:
        """Serve and drive the loop to its end; write summary and report.

        Parameters
        ----------
        record : Path
            Weather record, CSV.
        make_config : callable
            The machine's.
        plain : bool
            Show plain lines even in a terminal.

        Raises
        ------
        CampaignError
            If the campaign cannot reach its end; the agent is stopped.
        """
        import parsl

        from apps.parsl_apps import parsl_stages
        from workflows.edge import ReplayProcess
        from workflows.loop import CampaignLoop
        from workflows.machine import event_line, machine_of
        from workflows.view import make_view

        folder = self._folder
        edge = EdgeProcess(folder, self._site)
        log = ReplayLog(folder.replay_log)
        log.read()
        replay = ReplayProcess(folder, edge, record, self._campaign.replay.rate)
        view = make_view(plain=plain)
        _log_to(folder.root / "campaign.log")
        config = make_config(folder.parsl)
        observations = ObservationStore(folder.observations)
        view.say(f"campaign {self._campaign.name}: {folder.root}")
        view.say(prepare(folder))
        try:
            edge.ensure()
            replay.start(log.data_time[-1] if log.data_time else None)
            machine = machine_of(config)
            with parsl.load(config):
                loop = CampaignLoop(
                    self._campaign,
                    self._site,
                    folder,
                    self._ledger,
                    parsl_stages(config.executors[0].label),
                    machine=machine,
                    on_event=lambda kind, data: view.say(event_line(kind, data)),
                    on_tick=lambda loop: self._tick(loop, edge, observations, log, view),
                )
                loop.run()
                self._wait_serving(edge, log, view)
            loop.note(machine.take_events())
            replay.stop()
            status = edge.client.status()
        finally:
            view.close()
            replay.stop()
            edge.stop()
            observations.close()
        log.read()
        self._finish(log, status, view)

    def _tick(
        self,
        loop: CampaignLoop,
        edge: EdgeProcess,
        observations: ObservationStore,
        log: ReplayLog,
        view: View,
    ) -> None:
        edge.ensure()
        self._freshness.tick()
        log.read()
        if time.monotonic() - self._agent_seen >= POLL_SECONDS:
            self._agent_seen = time.monotonic()
            self._look_at(edge, observations)
        view.update(self._snapshot(loop, log))
        self._announce(view)

    def _look_at(self, edge: EdgeProcess, observations: ObservationStore) -> None:
        log = structlog.get_logger()
        try:
            self._agent_status = edge.client.status()
        except RbfError as error:
            self._agent_status = None
            log.warning("agent does not answer", error=str(error))
        try:
            take_folder(observations, self._folder.inbox)
            while page := observations.readings(self._sequence, PAGE):
                self._ledger.store_readings(reading for _, reading in page)
                self._sequence = page[-1][0]
        except (ObservationError, OSError) as error:
            # The batches stay where they are.
            log.warning("observations cannot be stored", error=str(error))

    def _snapshot(self, loop: CampaignLoop, log: ReplayLog) -> Snapshot:
        from workflows.view import Snapshot

        return Snapshot(
            name=self._campaign.name,
            elapsed=time.monotonic() - self._started,
            tallies=loop.tallies(),
            running=loop.running,
            candidates=self._ledger.candidates(),
            agent=self._agent_status,
            service=service(log, last=1000),
        )

    def _announce(self, view: View) -> None:
        ended = [
            c
            for c in self._ledger.candidates()
            if c.state in ("published", "refused", "failed") and c.number > self._told
        ]
        for candidate in ended:
            self._told = candidate.number
            scores = candidate.result.get("scores", {}).get("evaluation", {})
            baselines = ", ".join(f"{k} {v:.4f}" for k, v in scores.get("baselines", {}).items())
            what = (
                f"release {candidate.version} published"
                if candidate.state == "published"
                else f"candidate {candidate.number} {candidate.state}: "
                + "; ".join(candidate.result.get("verdict", {}).get("reasons", []))
                + str(candidate.result.get("reason", ""))
            )
            rmse = f"; RMSE {scores['rmse']:.4f} m/s" if scores else ""
            view.say(f"{what} ({len(candidate.task['digests'])} simulations{rmse}; {baselines})")

    def _wait_serving(self, edge: EdgeProcess, log: ReplayLog, view: View) -> None:
        versions = [c.version for c in self._ledger.candidates() if c.state == "published"]
        if not versions or versions[-1] is None:
            view.say("no release was published; see the reasons above")
            return
        try:
            edge.client.wait_serving(versions[-1], SERVE_SECONDS)
        except RbfError as error:
            view.say(f"the agent does not serve release {versions[-1]}: {error}")
            return
        wanted = self._campaign.replay.minimum_answers

        def enough() -> bool:
            log.read()
            return service(log).answered >= wanted

        # Twice the time that the rate asks for; a record that ends before has no more to give.
        if not wait_until(enough, 2 * wanted / self._campaign.replay.rate):
            view.say(f"fewer than {wanted} answers: percentiles are rough")

    def _finish(self, log: ReplayLog, status: dict[str, Any], view: View) -> None:
        from rich.console import Console

        from workflows.fidelities import held_out_scores
        from workflows.report import write_report
        from workflows.summary import summarise, summary_table, write_summary
        from workflows.view import candidate_table

        folder = self._folder
        elapsed = time.monotonic() - self._started
        versions = [c.version for c in self._ledger.candidates() if c.state == "published"]
        correction = held_out_scores(
            self._campaign, self._site, folder, self._ledger, versions[-1] if versions else None
        )
        summary = summarise(
            self._campaign.name, self._ledger, log, status["swaps"], elapsed, correction
        )
        write_summary(folder.summary, summary)
        write_report(folder, self._site, self._ledger, log, summary)
        self._ledger.event("finished", seconds=elapsed)
        console = Console()
        console.print(candidate_table(self._ledger.candidates()))
        console.print(summary_table(summary))
        view.say(f"summary: {folder.summary}")
        view.say(f"report:  {folder.report}")


def _log_to(path: Path) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=path.open("a", buffering=1)),
    )
