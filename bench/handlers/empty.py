# ruff: noqa: INP001 -- a file of an image is no package
"""FastAPI behind Mangum with one route that does nothing: what the framework itself costs."""

from fastapi import FastAPI
from mangum import Mangum

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer."""
    return {"status": "ok"}


handler = Mangum(app, lifespan="off")
