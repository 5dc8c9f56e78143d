"""MLServer's runtime of a registered model; `parameters.uri` is its directory and the name of the model its own."""

import os
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from models import opened

os.sched_setaffinity(0, {int(os.environ["PEER_CORE"])})


class Runtime(MLModel):
    async def load(self) -> bool:
        self._model = opened(Path(self.settings.parameters.uri), self.settings.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        scores = self._model(self._rows(given))
        output = ResponseOutput(name="score", shape=[len(scores), 1], datatype="FP64", data=scores)
        return InferenceResponse(model_name=self.name, outputs=[output])

    def _rows(self, given: RequestInput) -> list:
        if self.settings.name != "tabular":
            return StringCodec.decode_input(given)
        rows = np.asarray(given.data.root, dtype=np.float64).reshape(given.shape)
        return [{f"x{n}": value for n, value in enumerate(row)} for row in rows.tolist()]
