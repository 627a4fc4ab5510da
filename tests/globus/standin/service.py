"""The web service: the calls of Globus Auth and Globus Compute that SDK and endpoint make."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pika
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Task as TaskMessage

from .broker import QUEUE_PREFIX, Broker
from .server import Problem, Web
from .store import Endpoint, Store, Task

PORT = 5000  # where the SDK looks for a local service
PAYLOAD_LIMIT = 10 * 2**20
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
USER = {
    "sub": "11111111-1111-4111-8111-111111111111",
    "preferred_username": "edge@example.org",
    "name": "Edge User",
    "email": "edge@example.org",
    "organization": "loopback",
    "identity_provider": "22222222-2222-4222-8222-222222222222",
}
Json = dict[str, Any]
Handler = Callable[..., Any]


@dataclass
class Faults:
    """Switches; a test sets them, and they hold until it sets them back."""

    delay: float = 0.0
    """Each result is held back so long, s."""
    drop: int = 0
    """So many results to come are lost."""
    duplicate: bool = False
    """Each task is delivered twice, as a broker may."""
    down: bool = False
    """Connections to the web service are refused."""
    silent: bool = False
    """The web service accepts connections and never answers."""
    unchecked: bool = False
    """The service does not look at allow-lists: the endpoint has to."""


class StandIn:
    """The service with its broker's side.

    Parameters
    ----------
    broker : str
        URL of RabbitMQ.
    endpoint_broker, client_broker : str, optional
        What endpoints and clients are told; through a proxy, so that their lines can be cut.
    """

    def __init__(
        self, broker: str, *, endpoint_broker: str | None = None, client_broker: str | None = None
    ) -> None:
        self.faults = Faults()
        self.store = Store()
        self._lock = threading.Lock()
        self._for_endpoints = endpoint_broker or broker
        self._for_clients = client_broker or broker
        self.broker = Broker(broker, self.store, lambda: self.faults.delay, self._drop_one)
        self.submissions = 0
        """Requests that submitted tasks."""
        self._web = Web(PORT, self._answer, self.faults)

    def close(self) -> None:
        self._web.close()
        self.broker.close()

    def _drop_one(self) -> bool:
        with self._lock:
            if self.faults.drop <= 0:
                return False
            self.faults.drop -= 1
            return True

    def _answer(self, method: str, path: str, body: Json, size: int) -> Any:
        for wanted, pattern, handler in self._routes():
            found = re.fullmatch(pattern, path)
            if method == wanted and found is not None:
                try:
                    return handler(body, size, **found.groupdict())
                except (pika.exceptions.AMQPError, OSError) as error:
                    raise Problem(503, f"broker unavailable: {type(error).__name__}") from error
        raise Problem(404, f"no route {method} {path}")

    def _routes(self) -> list[tuple[str, str, Handler]]:
        one = r"(?P<at>[0-9a-fA-F-]{36})"
        return [
            ("POST", "/v2/oauth2/token", self._token),
            ("GET", "/v2/oauth2/userinfo", lambda *_: USER | {"identity_set": [USER]}),
            ("GET", "/v2/api/identities", self._identities),
            ("GET", "/v2/version", self._version),
            ("GET", "/v2/get_amqp_result_connection_url", self._result_queue),
            (
                "POST",
                "/v3/endpoints",
                lambda b, s: self._register(b, s, str(uuid.uuid4())),
            ),
            ("PUT", f"/v3/endpoints/{one}", self._register),
            ("POST", f"/v3/endpoints/{one}/lock", lambda *_, **__: {}),
            ("GET", f"/v3/endpoints/{one}/allowed_functions", self._allowed),
            ("POST", f"/v3/endpoints/{one}/submit", self._submit),
            ("GET", f"/v2/endpoints/{one}", self._about_endpoint),
            ("GET", f"/v2/endpoints/{one}/status", self._status),
            ("POST", "/v3/functions", self._register_function),
            ("GET", f"/v2/functions/{one}", self._about_function),
            ("POST", "/v2/batch_status", self._batch_status),
            ("GET", f"/v2/tasks/{one}", lambda _body, _size, at: self._about_task(at)),
        ]

    def _token(self, body: Json, _size: int) -> Json:
        scopes: dict[str, list[str]] = {}
        for scope in (body.get("scope") or "openid").split():
            compute = "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9" in scope
            server = "funcx_service" if compute else "auth.globus.org"
            scopes.setdefault(server, []).append(scope)
        tokens = [
            {
                "access_token": f"loopback-{server}",
                "scope": " ".join(names),
                "expires_in": 172_800,
                "token_type": "Bearer",
                "resource_server": server,
            }
            for server, names in scopes.items()
        ]
        return {**tokens[0], "other_tokens": tokens[1:]}

    def _identities(self, _body: Json, _size: int) -> Json:
        return {"identities": [{"id": USER["sub"], "username": USER["preferred_username"]}]}

    def _version(self, _body: Json, _size: int) -> Json:
        return {"api": "1.0.0", "min_ep_version": "4.0.0", "min_sdk_version": "2.0.0"}

    def _result_queue(self, _body: Json, _size: int) -> Json:
        return {"queue_prefix": QUEUE_PREFIX, "connection_url": self._for_clients}

    def _register(self, body: Json, _size: int, at: str) -> Json:
        with self.store.lock:
            self.store.endpoints[at] = Endpoint(at, body)
        self.broker.declare(f"{at}.commands", "commands")
        return {
            "endpoint_id": at,
            "command_queue_info": {
                "connection_url": self._for_endpoints,
                "queue": f"{at}.commands",
            },
            "heartbeat_queue_info": self._queue("heartbeats", at),
        }

    def _queue(self, kind: str, endpoint: str) -> Json:
        return {
            "connection_url": self._for_endpoints,
            "exchange": kind,
            "queue": kind,
            "queue_publish_kwargs": {
                "exchange": kind,
                "routing_key": f"{endpoint}.{kind}",
                "mandatory": True,
                "properties": {"delivery_mode": 2},
            },
        }

    def _endpoint(self, identifier: str) -> Endpoint:
        found = self.store.endpoints.get(identifier)
        if found is None:
            raise Problem(404, f"Endpoint {identifier} not found", "ENDPOINT_NOT_FOUND")
        return found

    def _function(self, identifier: str) -> Json:
        found = self.store.functions.get(identifier)
        if found is None:
            raise Problem(404, f"Function {identifier} not found", "FUNCTION_NOT_FOUND")
        return found

    def _allowed(self, _body: Json, _size: int, at: str) -> Json:
        allowed = self._endpoint(at).about.get("allowed_functions")
        return {"endpoint_id": at, "restricted": allowed is not None, "functions": allowed or []}

    def _about_endpoint(self, _body: Json, _size: int, at: str) -> Json:
        about = self._endpoint(at).about
        return {"uuid": at, "name": about.get("endpoint_name"), "owner_id": USER["sub"]}

    def _status(self, _body: Json, _size: int, at: str) -> Json:
        endpoint = self._endpoint(at)
        return {"status": "online" if endpoint.online else "offline", "details": endpoint.state}

    def _register_function(self, body: Json, _size: int) -> Json:
        identifier = str(uuid.uuid4())
        code = body["function_code"]
        if body.get("serialized") is False:  # source text, as PureSourceTextInspect has it
            code = f"st\n{body['function_name']}:{code}"
            code = f"{len(code)}\n{code}"
        self.store.functions[identifier] = body | {"function_code": code}
        return {"function_uuid": identifier}

    def _about_function(self, _body: Json, _size: int, at: str) -> Json:
        found = self._function(at)
        return {
            "function_uuid": at,
            "function_name": found["function_name"],
            "function_code": found["function_code"],
            "metadata": found.get("meta"),
        }

    def _submit(self, body: Json, size: int, at: str) -> Json:
        if size > PAYLOAD_LIMIT:
            raise Problem(413, f"Task payload of {size} bytes", "TASK_PAYLOAD_TOO_LARGE")
        endpoint = self._endpoint(at)
        allowed = endpoint.about.get("allowed_functions")
        for function in body["tasks"]:
            self._function(function)
            if allowed is not None and function not in allowed and not self.faults.unchecked:
                raise Problem(403, f"Function {function} not permitted", "FUNCTION_NOT_PERMITTED")
        self.submissions += 1
        group = body.get("task_group_id") or str(uuid.uuid4())
        if body.get("create_queue"):
            self.broker.declare(QUEUE_PREFIX + group)
        user_endpoint = self._start_user_endpoint(endpoint, body)
        tasks: dict[str, list[str]] = {}
        for function, payloads in body["tasks"].items():
            code = self._function(function)["function_code"]
            for payload in payloads:
                task = Task(str(uuid.uuid4()), group, user_endpoint)
                self.store.tasks[task.id] = task
                tasks.setdefault(function, []).append(task.id)
                self._send(task, function, code + payload, body)
        return {
            "request_id": str(uuid.uuid4()),
            "task_group_id": group,
            "endpoint_id": at,
            "tasks": tasks,
        }

    def _start_user_endpoint(self, endpoint: Endpoint, body: Json) -> str:
        """Have the core endpoint start the child that runs tasks; it keeps one that runs."""
        config = body.get("user_endpoint_config") or {}
        name = endpoint.id + str(USER["sub"]) + json.dumps(config, sort_keys=True)
        child = str(uuid.uuid5(NAMESPACE, name))
        with self.store.lock:
            self.store.endpoints.setdefault(child, Endpoint(child, {}, parent=endpoint.id))
        self.broker.declare(f"{child}.tasks", "tasks")
        task_queue = {
            "connection_url": self._for_endpoints,
            "exchange": "tasks",
            "queue": f"{child}.tasks",
        }
        command = {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"uep.{endpoint.id}.{child}",
                "amqp_creds": {
                    "endpoint_id": child,
                    "task_queue_info": task_queue,
                    "result_queue_info": self._queue("results", child),
                    "heartbeat_queue_info": self._queue("heartbeats", child),
                },
                "user_opts": config,
                "user_runtime": body.get("user_runtime"),
            },
            "globus_effective_identity": USER["sub"],
            "globus_username": USER["preferred_username"],
            "globus_identity_set": [USER],
        }
        self.broker.publish(
            "commands",
            f"{endpoint.id}.commands",
            json.dumps(command).encode(),
            content_type="application/json",
            timestamp=int(time.time()),
            headers={},
        )
        return child

    def _send(self, task: Task, function: str, buffer: str, body: Json) -> None:
        headers: Json = {"function_uuid": function, "task_uuid": task.id}
        if body.get("resource_specification"):
            headers["resource_specification"] = json.dumps(body["resource_specification"])
        if body.get("result_serializers"):
            headers["result_serializers"] = body["result_serializers"]
        message = messagepack.pack(TaskMessage(task_id=task.id, task_buffer=buffer))
        for _ in range(2 if self.faults.duplicate else 1):
            self.broker.publish("tasks", f"{task.endpoint}.tasks", message, headers=headers)

    def _batch_status(self, body: Json, _size: int) -> Json:
        known = [t for t in body["task_ids"] if t in self.store.tasks]
        return {"response": "batch", "results": {t: self._about_task(t) for t in known}}

    def _about_task(self, identifier: str) -> Json:
        task = self.store.tasks.get(identifier)
        if task is None:
            raise Problem(404, "task not found", "TASK_NOT_FOUND")
        about: Json = {"task_id": task.id, "status": task.status}
        if task.status == "success":
            about |= {"completion_t": str(time.time()), "result": task.result}
        elif task.status == "failed":
            about |= {"completion_t": str(time.time()), "exception": task.exception}
        return about
