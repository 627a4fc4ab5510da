"""MLServer reads its settings from a folder; its REST side knows no binary tensors."""

import json
import os
import sys
import tempfile
from pathlib import Path

port = int(os.environ["BENCH_PORT"])
folder = Path(tempfile.mkdtemp())
settings = {
    "host": "127.0.0.1",
    "http_port": port,
    "grpc_port": port + 1,
    "metrics_port": port + 2,
    "parallel_workers": 0,
    "debug": False,
}
(folder / "settings.json").write_text(json.dumps(settings))
(folder / "model-settings.json").write_text(
    json.dumps({"name": "bench", "implementation": "mlserver_runtime.Bench"})
)
mlserver = Path(sys.executable).with_name("mlserver")
os.execv(mlserver, [str(mlserver), "start", str(folder)])
