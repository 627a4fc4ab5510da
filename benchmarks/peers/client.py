"""The callers of the edge benchmarks: raw sockets, one request at a time, answers parsed lightly.

``python client.py KIND ADDRESS SECONDS OUT`` prints READY, waits for a line on stdin, then runs a
closed loop and writes the latencies (ns) to OUT; used where several clients are wanted.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import msgspec
import numpy as np

INPUTS = np.array([[4.0, 270.0]], np.float32)
MODEL = "bench"
_encode, _decode = msgspec.json.encode, msgspec.json.decode


class Http:
    """One kept HTTP/1.1 connection and one request, sent again and again.

    Parameters
    ----------
    address : str
        ``/path`` or ``host:port``.
    path : str
    body : bytes
    headers : str
        Further header lines, each ended by CRLF.
    """

    def __init__(self, address: str, path: str, body: bytes, headers: str = "") -> None:
        if address.startswith("/"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(60)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._request = head.encode() + body
        self._buffer = bytearray(1 << 21)
        self._view = memoryview(self._buffer)
        self.head = b""

    def call(self) -> memoryview:
        """Send the request; return the body of the answer."""
        self._socket.sendall(self._request)
        size = self._socket.recv_into(self._view)
        end = self._buffer.find(b"\r\n\r\n", 0, size)
        while end < 0:
            size += self._more(size)
            end = self._buffer.find(b"\r\n\r\n", 0, size)
        self.head = bytes(self._view[:end]).lower() + b"\r\n"
        if b" 200 " not in self.head[:16]:
            raise RuntimeError(bytes(self._view[:size])[:500])
        at = self.head.find(b"\r\ncontent-length: ")
        if at < 0:
            return self._chunked(end + 4, size)
        length = int(self.head[at + 18 : self.head.find(b"\r\n", at + 2)])
        while size < end + 4 + length:
            size += self._more(size)
        return self._view[end + 4 : end + 4 + length]

    def _more(self, size: int) -> int:
        count = self._socket.recv_into(self._view[size:])
        if not count:
            raise EOFError
        return count

    def _chunked(self, at: int, size: int) -> memoryview:
        while not self._buffer.endswith(b"0\r\n\r\n", 0, size):
            size += self._more(size)
        body = bytearray()
        while True:
            end = self._buffer.find(b"\r\n", at, size)
            length = int(self._view[at:end].tobytes(), 16)
            if not length:
                return memoryview(body)
            body += self._view[end + 2 : end + 2 + length]
            at = end + 4 + length


def caller(kind: str, address: str) -> Callable[[], int]:
    """Return a function that asks once and returns how many values came back.

    Parameters
    ----------
    kind : str
        ``oip`` (Open Inference Protocol, binary both ways), ``oip-json``, ``raw`` (bytes both
        ways) or ``json-raw`` (JSON there, bytes back), and after a colon the path.
    address : str
    """
    kind, _, path = kind.partition(":")
    path = path or f"/v2/models/{MODEL}/infer"
    tensor: dict[str, object] = {"name": "inputs", "shape": [1, 2], "datatype": "FP32"}
    if kind == "oip":
        tensor["parameters"] = {"binary_data_size": INPUTS.nbytes}
        wanted = [{"name": n, "parameters": {"binary_data": True}} for n in ("wind", "wind_std")]
        asked = {"inputs": [tensor], "outputs": wanted, "parameters": {"binary_data_output": True}}
        head = _encode(asked)
        extra = (
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n"
        )
        http = Http(address, path, head + INPUTS.tobytes(), extra)

        def binary() -> int:
            body = http.call()
            at = http.head.find(b"\r\ninference-header-content-length: ")
            split = int(http.head[at + 35 : http.head.find(b"\r\n", at + 2)])
            _decode(body[:split])
            return np.frombuffer(body[split:], "<f4").size

        return binary
    if kind == "oip-json":
        tensor["data"] = INPUTS[0].tolist()
        body = _encode({"inputs": [tensor]})
        http = Http(address, path, body, "Content-Type: application/json\r\n")
        return lambda: sum(
            np.array(o["data"], np.float32).size for o in _decode(http.call())["outputs"]
        )
    if kind == "raw":
        extra = "Content-Type: application/octet-stream\r\n"
        http = Http(address, path, INPUTS.tobytes(), extra)
    else:
        body = _encode({"data": INPUTS.tolist()})
        http = Http(address, path, body, "Content-Type: application/json\r\n")
    return lambda: np.frombuffer(http.call(), "<f4").size


def main() -> None:
    kind, address, seconds, out = sys.argv[1:]
    ask = caller(kind, address)
    for _ in range(20):
        ask()
    print("READY", flush=True)
    sys.stdin.readline()
    clock = time.perf_counter_ns
    end = clock() + int(float(seconds) * 1e9)
    found = []
    before = clock()
    while before < end:
        ask()
        after = clock()
        found.append(after - before)
        before = after
    np.save(out, np.array(found))


if __name__ == "__main__":
    main()
