from core import Model
from mosec import Server, Worker


class Bench(Worker):
    def __init__(self):
        super().__init__()
        self._model = Model()

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return self._model.to_bytes(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Bench, num=1)
    server.run()
