"""What the service remembers: endpoints, functions, tasks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Endpoint:
    """A core endpoint, or a user endpoint that one of them starts."""

    id: str
    about: dict[str, Any]
    parent: str | None = None
    seen_at: float = 0.0
    """Wall time of the last heartbeat, s."""
    state: dict[str, Any] = field(default_factory=dict)
    """What it said then."""

    @property
    def online(self) -> bool:
        period = self.state.get("heartbeat_period") or 0
        return bool(self.state.get("active", True)) and time.time() - self.seen_at < 2.5 * period


@dataclass
class Task:
    """One call of a function."""

    id: str
    group: str
    endpoint: str
    status: str = "waiting-for-ep"
    result: str | None = None
    exception: str | None = None


class Store:
    """In memory; any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.endpoints: dict[str, Endpoint] = {}
        self.functions: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, Task] = {}

    def finish(self, task_id: str, data: str, *, failed: bool) -> Task | None:
        """Record a task's end; none if it is unknown or has ended."""
        with self.lock:
            task = self.tasks.get(task_id)
            if task is None or task.status in ("success", "failed"):
                return None
            task.status = "failed" if failed else "success"
            if failed:
                task.exception = data
            else:
                task.result = data
            return task

    def pending(self, endpoint: str) -> list[Task]:
        """Tasks of a user endpoint that have not ended."""
        with self.lock:
            return [
                t
                for t in self.tasks.values()
                if t.endpoint == endpoint and t.status == "waiting-for-ep"
            ]
