"""Large answers, made beside the event loop: on it they would hold up every other request."""

import asyncio
from collections.abc import Callable

from fastapi import Response
from pydantic import BaseModel


async def answered(make: Callable[[], BaseModel]) -> Response:
    """What `make` makes, as JSON. The route names its type as `response_model`."""
    body = await asyncio.to_thread(lambda: make().model_dump_json())
    return Response(body, media_type="application/json")
