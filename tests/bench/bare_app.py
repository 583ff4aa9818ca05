"""What `ingest` is compared with: an app on the same server that only reads the body, on a port."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from service.settings_values import WEBHOOK_PATH

if TYPE_CHECKING:
    from starlette.requests import Request


async def read(request: Request) -> Response:
    """Read, and say so."""
    return Response(b"%d" % len(await request.body()), status_code=202)


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route(WEBHOOK_PATH, read, methods=["POST"])]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
