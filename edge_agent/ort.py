"""ONNX Runtime through its C interface: a dozen functions of the library inside the wheel.

The Python constructor of the wheel holds the interpreter lock while it loads a model
(onnxruntime#27063), so every request waits for a release that is being loaded. Calls through
`ctypes` do not. The function table of the C interface only ever grows, so the positions below hold
for every later version; the version asked for is the oldest that has them all.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

API_VERSION = 16
_FLOAT = 1
_ARENA_ALLOCATOR, _DEFAULT_MEMORY = 1, 0
_SEVERITY_ERROR = 3
_ALL_OPTIMISATIONS = 99
_HANDLES = POINTER(c_void_p)

#: Name to position in ``OrtApi`` (onnxruntime_c_api.h) and parameter types.
_FUNCTIONS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "create_env": (3, (c_int, c_char_p, _HANDLES)),
    "create_session": (8, (c_void_p, c_char_p, c_size_t, c_void_p, _HANDLES)),
    "run": (
        9,
        (
            c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p,
        ),
    ),
    "create_options": (10, (_HANDLES,)),
    "set_optimisation": (23, (c_void_p, c_int)),
    "set_intra_threads": (24, (c_void_p, c_int)),
    "set_inter_threads": (25, (c_void_p, c_int)),
    "create_tensor": (
        49,
        (c_void_p, c_void_p, c_size_t, POINTER(c_int64), c_size_t, c_int, _HANDLES),
    ),
    "create_cpu_memory": (69, (c_int, c_int, _HANDLES)),
}  # fmt: skip
_RELEASES = {"status": 93, "session": 95, "value": 96, "options": 100}
_ERROR_MESSAGE = 2


class OrtError(Exception):
    """ONNX Runtime refused; the message is its own."""


class _Base(ctypes.Structure):
    _fields_ = (
        ("get_api", ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)),
        ("get_version", ctypes.CFUNCTYPE(c_char_p)),
    )


class Library:
    """The bound functions and the one environment of the process.

    Raises
    ------
    OSError
        If the wheel, its library or the interface version is not there.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(str(_library_path()))
        try:
            library.OrtGetApiBase.restype = POINTER(_Base)
            base = library.OrtGetApiBase().contents
        except AttributeError as error:
            msg = "the ONNX Runtime library does not export OrtGetApiBase"
            raise OSError(msg) from error
        address = base.get_api(API_VERSION)
        if not address:
            msg = f"ONNX Runtime {base.get_version().decode()} lacks interface {API_VERSION}"
            raise OSError(msg)
        table = ctypes.cast(address, _HANDLES)
        self._library = library
        self._message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(_entry(table, _ERROR_MESSAGE))
        self._release = {
            name: ctypes.CFUNCTYPE(None, c_void_p)(_entry(table, position))
            for name, position in _RELEASES.items()
        }
        self.call = {
            name: ctypes.CFUNCTYPE(c_void_p, *types)(_entry(table, position))
            for name, (position, types) in _FUNCTIONS.items()
        }
        """Name to function; each returns a status, none for success."""
        position, types = _FUNCTIONS["run"]
        self.run_holding = ctypes.PYFUNCTYPE(c_void_p, *types)(_entry(table, position))
        """``run`` without giving up the interpreter lock."""
        self.environment = c_void_p()
        self.memory = c_void_p()
        self.check(self.call["create_env"](_SEVERITY_ERROR, b"rbf", ctypes.byref(self.environment)))
        self.check(
            self.call["create_cpu_memory"](
                _ARENA_ALLOCATOR, _DEFAULT_MEMORY, ctypes.byref(self.memory)
            )
        )

    def check(self, status: int | None) -> None:
        """Raise `OrtError` for a status that is not success."""
        if status:
            message = self._message(status).decode(errors="replace")
            self.release("status", c_void_p(status))
            raise OrtError(message)

    def release(self, kind: str, handle: c_void_p) -> None:
        """Release a handle of a kind in `_RELEASES`."""
        self._release[kind](handle)

    def session(self, data: bytes) -> c_void_p:
        """Return a session of a model: one thread within and between operators."""
        options, session = c_void_p(), c_void_p()
        self.check(self.call["create_options"](ctypes.byref(options)))
        try:
            self.check(self.call["set_intra_threads"](options, 1))
            self.check(self.call["set_inter_threads"](options, 1))
            self.check(self.call["set_optimisation"](options, _ALL_OPTIMISATIONS))
            self.check(
                self.call["create_session"](
                    self.environment, data, len(data), options, ctypes.byref(session)
                )
            )
        finally:
            self.release("options", options)
        return session

    def tensor(self, array: np.ndarray) -> c_void_p:
        """Return a tensor over an array's memory, which must outlive it; float32, contiguous."""
        value = c_void_p()
        shape = (c_int64 * array.ndim)(*array.shape)
        self.check(
            self.call["create_tensor"](
                self.memory,
                array.ctypes.data,
                array.nbytes,
                shape,
                array.ndim,
                _FLOAT,
                ctypes.byref(value),
            )
        )
        return value


_lock = threading.Lock()
_library: Library | None = None


def library() -> Library:
    """Return the bound library, made once per process; raises OSError if it cannot be bound."""
    global _library  # noqa: PLW0603 - one environment per process is the library's own rule
    with _lock:  # its initialisation is not thread-safe (onnxruntime#27089)
        if _library is None:
            _library = Library()
        return _library


def _library_path() -> Path:
    # Found without importing the package, whose extension is a second copy of the engine.
    spec = importlib.util.find_spec("onnxruntime")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        found = sorted((Path(folder) / "capi").glob("libonnxruntime.so*"))
        if found:
            return found[0]
    msg = "no libonnxruntime.so in the onnxruntime package"
    raise OSError(msg)


def _entry(table: Any, position: int) -> int:  # noqa: ANN401 - a ctypes pointer
    address: int = table[position]
    return address
