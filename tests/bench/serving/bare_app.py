"""The yardstick of serving: the same model behind FastAPI, with a token and JSON or Arrow, and nothing else.

It is what somebody writes by hand who needs no erasures: ``python -m tests.bench.serving.bare_app WEIGHTS PORT TOKEN``.
Shape legend: K constituents, N points, F features, C classes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys

import numpy as np
import pyarrow as pa
import torch
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from shards.data.messages import ARROW_STREAM

_TOGETHER = 1024


class BareModel:
    """Multi-layer perceptrons of one hidden layer, their weights side by side."""

    def __init__(self, file: str) -> None:
        arrays = np.load(file)
        self.first, self.first_bias, self.second, self.second_bias = (
            torch.from_numpy(arrays[name]) for name in ("first", "first_bias", "second", "second_bias")
        )
        self.scale = float(arrays["scale"])

    def probabilities(self, features_NF: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Return the mean probabilities, shape (N, C)."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(features_NF), _TOGETHER):
                chunk = features_NF[start : start + _TOGETHER] / self.scale
                inputs_KNF = chunk.expand(len(self.first), *chunk.shape)
                hidden = torch.baddbmm(self.first_bias, inputs_KNF, self.first).tanh_()
                logits_KNC = torch.baddbmm(self.second_bias, hidden, self.second)
                parts.append(logits_KNC.double().softmax(dim=2).mean(dim=0).numpy())
        return np.concatenate(parts)


def bare_app(model: BareModel, token: str) -> FastAPI:
    """Return the application."""
    app, known = FastAPI(), hashlib.sha256(token.encode()).digest()

    @app.post("/v1/predictions")
    async def predict(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(given.encode()).digest(), known):
            return Response(status_code=401)
        body = await request.body()
        if request.headers["content-type"] == ARROW_STREAM:
            return Response(_of_arrow(model, body), media_type=ARROW_STREAM)
        points = json.loads(body)["points"]
        found_NC = model.probabilities(torch.tensor([point["features"] for point in points], dtype=torch.float32))
        answers = [
            {"id": point["id"], "prediction": str(line.argmax()), "probabilities": line.tolist()}
            for point, line in zip(points, found_NC, strict=True)
        ]
        return Response(json.dumps({"predictions": answers}), media_type="application/json")

    return app


def _of_arrow(model: BareModel, body: bytes) -> bytes:
    table = pa.ipc.open_stream(body).read_all()
    names = [name for name in table.column_names if name.startswith("x")]
    features_NF = np.stack([table.column(name).to_numpy() for name in names], axis=1).astype(np.float32)
    found_NC = model.probabilities(torch.from_numpy(features_NF))
    columns = {"id": table.column("id"), "prediction": [str(each) for each in found_NC.argmax(axis=1)]}
    columns |= {f"probability_{number}": each for number, each in enumerate(found_NC.astype(np.float32).T.copy())}
    found = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def main() -> None:
    """Serve until killed."""
    weights, port, token = sys.argv[1:]
    torch.set_num_threads(1)
    uvicorn.run(bare_app(BareModel(weights), token), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
