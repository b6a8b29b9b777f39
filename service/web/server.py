"""The web port is listened on before the role is ready, and closed when it is told to stop."""

import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from service.stopping import Stop

GRACE_SECONDS = 3  # for requests that are being answered
IDLE_SECONDS = 5  # of a kept connection
CONNECTIONS = 100  # beyond them 503


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError when the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def serve(app: ASGIApp, *, listener: socket.socket, stop: Stop, ready: Callable[[], None]) -> None:
    """Answer requests until told to stop; takes the socket over."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # Beside the main thread uvicorn leaves the signals alone: they are the role's.
    thread = threading.Thread(target=server.run, args=([listener],), name="web", daemon=True)
    thread.start()
    ready()
    while thread.is_alive() and not stop.wait(1.0):
        pass
    server.should_exit = True
    thread.join()
    if not stop.asked:
        raise RuntimeError("the web server ended by itself")
