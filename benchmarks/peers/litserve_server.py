"""LitServe: python litserve_server.py PORT CORE DIRECTORY MODEL BATCH, BATCH 1 for none."""

import os
import sys
from pathlib import Path
from typing import Any

port, core, directory, name, batch = (
    int(sys.argv[1]),
    int(sys.argv[2]),
    Path(sys.argv[3]),
    sys.argv[4],
    int(sys.argv[5]),
)
os.sched_setaffinity(0, {core})

import litserve
from models import opened


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = opened(directory, name)

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["inputs"][0]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def predict(self, given: Any) -> Any:
        return self.model(given) if batch > 1 else self.model([given])[0]

    def encode_response(self, output: float) -> dict[str, Any]:
        return {"outputs": [{"score": output}]}


if __name__ == "__main__":
    api = Api(max_batch_size=batch, batch_timeout=0.002) if batch > 1 else Api()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error", access_log=False)
