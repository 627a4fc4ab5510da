from core import PORT, Model
from kserve import InferOutput, InferResponse, ModelServer
from kserve import Model as Base


class Bench(Base):
    def __init__(self):
        super().__init__("bench")
        self._model = Model()
        self.ready = True

    def load(self):
        return True

    async def predict(self, payload, headers=None, response_headers=None):
        inputs = payload.inputs[0].as_numpy()
        outputs = []
        for name, array in zip(("wind", "wind_std"), self._model(inputs), strict=True):
            output = InferOutput(name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id, "bench", outputs, use_binary_outputs=True)


if __name__ == "__main__":
    server = ModelServer(
        http_port=PORT, enable_grpc=False, workers=1, access_log_format="", enable_docs_url=False
    )
    server.start([Bench()])
