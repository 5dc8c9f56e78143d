"""A `def` route of FastAPI that answers each request by itself: python fastapi_server.py PORT CORE DIRECTORY MODEL."""

import os
import sys
from pathlib import Path
from typing import Any

port, core, directory, name = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
os.sched_setaffinity(0, {core})

import uvicorn
from fastapi import FastAPI
from models import opened
from pydantic import BaseModel

app, model = FastAPI(), opened(directory, name)


class Asked(BaseModel):
    inputs: list[Any]


@app.post("/predict")
def predict(asked: Asked) -> dict[str, Any]:
    return {"outputs": [{"score": score} for score in model(asked.inputs)]}


uvicorn.run(app, port=port, log_level="error", access_log=False)
