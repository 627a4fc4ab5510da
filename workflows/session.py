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
from workflows.edge import EdgeProcess, RemoteEdge, wait_until
from workflows.errors import ObservationError
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.notify import EXECUTOR, Notifier, notify_app
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

#: How long a release has to serve, s: on the campaign's own agent, and on one in a field.
SERVE_SECONDS, FIELD_SECONDS = 20.0, 300.0

#: A machine module's function: folder for Parsl's logs -> fresh ``parsl.Config``.
MakeConfig = Callable[[Path], "Config"]


class Session:
    """One run of the program on a campaign.

    Parameters
    ----------
    campaign, site, folder, ledger
        What to do, where, and what is known already.
    edge : str, optional
        Address of an edge agent that is there already (`RemoteAgent`); by default the campaign
        starts one and feeds it the weather record.
    """

    def __init__(
        self,
        campaign: Campaign,
        site: Site,
        folder: RunFolder,
        ledger: Ledger,
        edge: str | None = None,
    ) -> None:
        self._address = edge
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
        from parsl.executors import ThreadPoolExecutor

        from apps.parsl_apps import parsl_stages
        from workflows.edge import ReplayProcess
        from workflows.loop import CampaignLoop
        from workflows.machine import event_line, machine_of
        from workflows.view import make_view

        folder = self._folder
        log = ReplayLog(folder.replay_log)
        log.read()
        edge: EdgeProcess | RemoteEdge
        replay: ReplayProcess | None = None
        if self._address is None:
            edge = local = EdgeProcess(folder, self._site)
            replay = ReplayProcess(folder, local, record, self._campaign.replay.rate)
        else:
            edge = RemoteEdge(self._address, self._site)
        view = make_view(plain=plain)
        _log_to(folder.root / "campaign.log")
        config = make_config(folder.parsl)
        observations = ObservationStore(folder.observations)
        view.say(f"campaign {self._campaign.name}: {folder.root}")
        view.say(prepare(folder))
        try:
            edge.ensure()
            if replay is not None:
                replay.start(log.data_time[-1] if log.data_time else None)
            machine = machine_of(config)
            with parsl.load(config) as kernel:
                kernel.add_executors([ThreadPoolExecutor(label=EXECUTOR, max_threads=1)])
                patience = SERVE_SECONDS if self._address is None else FIELD_SECONDS
                notifier = Notifier(notify_app(edge.client, patience), self._ledger, view.say)
                loop = CampaignLoop(
                    self._campaign,
                    self._site,
                    folder,
                    self._ledger,
                    parsl_stages(config.executors[0].label),
                    machine=machine,
                    on_event=lambda kind, data: view.say(event_line(kind, data)),
                    on_tick=lambda loop: self._tick(loop, edge, notifier, observations, log, view),
                )
                loop.on_published = notifier.published
                notifier.resume()
                loop.run()
                notifier.collect(wait=True)
                if replay is not None:
                    self._wait_answers(log, view)
            loop.note(machine.take_events())
            if replay is not None:
                replay.stop()
            swaps = self._swaps(edge, view)
        finally:
            view.close()
            if replay is not None:
                replay.stop()
            edge.stop()
            observations.close()
        log.read()
        self._finish(log, swaps, view)

    def _tick(
        self,
        loop: CampaignLoop,
        edge: EdgeProcess | RemoteEdge,
        notifier: Notifier,
        observations: ObservationStore,
        log: ReplayLog,
        view: View,
    ) -> None:
        edge.ensure()
        notifier.collect()
        self._freshness.tick()
        log.read()
        if time.monotonic() - self._agent_seen >= POLL_SECONDS:
            self._agent_seen = time.monotonic()
            self._look_at(edge, observations)
        view.update(self._snapshot(loop, log))
        self._announce(view)

    def _look_at(self, edge: EdgeProcess | RemoteEdge, observations: ObservationStore) -> None:
        log = structlog.get_logger()
        if self._address is None:  # another's is asked when there is something to ask
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

    def _wait_answers(self, log: ReplayLog, view: View) -> None:
        if not any(c.state == "published" for c in self._ledger.candidates()):
            view.say("no release was published; see the reasons above")
            return
        wanted = self._campaign.replay.minimum_answers

        def enough() -> bool:
            log.read()
            return service(log).answered >= wanted

        # Twice the time that the rate asks for, and a second to begin with; a record that ends
        # before has no more to give.
        if not wait_until(enough, 1.0 + 2 * wanted / self._campaign.replay.rate):
            view.say(f"fewer than {wanted} answers: percentiles are rough")

    def _swaps(self, edge: EdgeProcess | RemoteEdge, view: View) -> list[dict[str, Any]]:
        try:
            swaps: list[dict[str, Any]] = edge.client.status()["swaps"]
        except RbfError as error:
            if self._address is None:
                raise
            view.say(f"the agent's swaps are not known: {error}")
            return []
        return swaps

    def _finish(self, log: ReplayLog, swaps: list[dict[str, Any]], view: View) -> None:
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
        summary = summarise(self._campaign.name, self._ledger, log, swaps, elapsed, correction)
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
