"""What an agent does beside answering: MQTT, assembly, monitors, delivery upstream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from edge_agent.agent import EdgeAgent
from edge_agent.contracts.monitors import Calibration, Signatures
from edge_agent.contracts.observation import Reading
from edge_agent.ingest.service import FieldSide
from edge_agent.measured import Pairs
from edge_agent.monitors.watch import Monitors
from edge_agent.outbox import Outbox
from edge_agent.settings import MonitorSettings
from edge_agent.spool import Kept
from edge_agent.upstream import Upstream, make_transport


class FieldServices:
    """The services of a started agent that its configuration asks for.

    Parameters
    ----------
    agent : EdgeAgent
        Started.

    Raises
    ------
    UpstreamError
        If the token for upstream cannot be read.
    InvalidMonitors
        If calibration or signatures cannot be read.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        config = agent.config
        self._agent = agent
        self.monitors = make_monitors(config.monitors)
        watchers = (self.monitors, Pairs(agent.measured.append))
        self.side = FieldSide(agent, agent.spool.record, config.ingest, agent.clock, watchers)
        sections: dict[str, Any] = {
            "ingest": self.side.status,
            "monitors": self.monitors.status,
        }
        self.upstream: Upstream | None = None
        if config.upstream is not None:
            outbox = Outbox(agent.spool, config.name, config.upstream.batch_bytes)
            transport = make_transport(config.upstream)
            self.upstream = Upstream(outbox, transport, config.upstream, agent.clock)
            sections["upstream"] = self.upstream.status
        self.mqtt: Any = None
        if config.mqtt is not None:
            # Imported where it is used: an agent without a broker starts faster.
            from edge_agent.ingest.mqtt import MqttLine

            self.mqtt = MqttLine(config.name, config.mqtt, self._take, self._rejected)
            self.side.publish = self.mqtt.publish_prediction
            self.monitors.publish = self.mqtt.publish_alarm
            sections["mqtt"] = self.mqtt.status
        agent.sections.update(sections)
        agent.gauges.update(self._gauges())
        agent.observers.append(self.side.observe)

    def start(self) -> None:
        """Begin."""
        self.side.start()
        if self.upstream is not None:
            self.upstream.start()
        if self.mqtt is not None:
            self.mqtt.start()

    def close(self) -> None:
        """Stop taking, look at what came, stop delivering; what waits stays in the spool."""
        if self.mqtt is not None:
            self.mqtt.close()
        self.side.close()
        if self.upstream is not None:
            self.upstream.close()

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float | None]]]:
        """Return what is watched from outside; reading one touches no disk."""
        spool, upstream, mqtt = self._agent.spool, self.upstream, self.mqtt
        alarms = self.monitors.alarms
        found: dict[str, tuple[str, Callable[[], float | None]]] = {
            "alarms_standing": (
                "Monitors whose alarm stands.",
                lambda: sum(a.standing for a in list(alarms.values())),
            ),
            "spool_uncut_readings": (
                "Readings on disk that are in no batch yet.",
                lambda: spool.uncut_count,
            ),
        }
        if upstream is not None:
            found["upstream_failures"] = (
                "Failed deliveries in a row.",
                lambda: upstream.failures,
            )
        if mqtt is not None:
            found["mqtt_connected"] = (
                "Whether the broker is there.",
                lambda: float(mqtt.connected.is_set()),
            )
        return found

    def _take(self, reading: Reading) -> Future[Kept]:
        good, bad = self._agent.check_readings([reading])
        if bad:
            raise bad[0]
        kept = self._agent.keep_readings(good)
        self._agent.observe(good, None)
        return kept

    def _rejected(self, reason: str) -> None:
        self._agent.counters.rejected[reason] += 1


def make_monitors(settings: MonitorSettings) -> Monitors:
    """Return the monitors of a configuration; raises `InvalidMonitors`."""
    calibration = None if settings.calibration is None else Calibration.load(settings.calibration)
    signatures = None if settings.signatures is None else Signatures.load(settings.signatures)
    return Monitors(settings, calibration, signatures)
