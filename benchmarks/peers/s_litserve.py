import litserve
import numpy as np
from core import PORT, Model
from fastapi import Request, Response


class Bench(litserve.LitAPI):
    def setup(self, device):
        self._model = Model()

    def decode_request(self, request: Request):  # JSON is all that it takes
        return np.array(request["data"], np.float32)

    def predict(self, inputs):
        return self._model.to_bytes(inputs.tobytes())

    def encode_response(self, body):
        return Response(body, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Bench(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        port=PORT,
        host="127.0.0.1",
        log_level="error",
        num_api_servers=1,
        generate_client_file=False,
        access_log=False,
    )
