import os
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

PORT = int(os.environ["BENCH_PORT"])
ray.init(
    num_cpus=2,
    include_dashboard=False,
    object_store_memory=200 * 2**20,
    log_to_driver=False,
    runtime_env={
        "env_vars": {k: os.environ[k] for k in ("PYTHONPATH", "BENCH_PORT", "BENCH_MODEL")}
    },
)
serve.start(
    http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False}
)


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=16)
class Bench:
    def __init__(self):
        from core import Model

        self._model = Model()

    async def __call__(self, request: Request):
        body = self._model.to_bytes(await request.body())
        return Response(body, media_type="application/octet-stream")


serve.run(Bench.bind(), route_prefix="/")
while True:
    time.sleep(1)
