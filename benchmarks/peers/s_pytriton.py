import numpy as np
from core import PORT, Model
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = Model()
shape = tuple(model(np.ones((1, 2), np.float32))[0].shape[1:])


@batch
def infer(inputs):
    return model(np.ascontiguousarray(inputs))


config = TritonConfig(
    http_address="127.0.0.1", http_port=PORT, allow_grpc=False, allow_metrics=False
)
with Triton(config=config) as triton:
    triton.bind(
        "bench",
        infer,
        [Tensor(name="inputs", dtype=np.float32, shape=(2,))],
        [Tensor(name=name, dtype=np.float32, shape=shape) for name in ("wind", "wind_std")],
        config=ModelConfig(
            max_batch_size=16, batcher=DynamicBatcher(max_queue_delay_microseconds=0)
        ),
    )
    triton.serve()
