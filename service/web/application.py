"""/health answers while the process lives, /ready when the node can work; /metrics counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from service import log, metrics
from service.web import page
from service.web.headers import StrictHeaders
from service.web.readiness import Check, failing
from storage.errors import StorageError
from storage.overview import Overview


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers come from: each is asked anew for every request."""

    checks: Mapping[str, Check]
    reading: Callable[[], metrics.Reading]
    overview: Callable[[], Overview]  # of the latest studies


def application(sources: Sources) -> Starlette:
    """The ASGI application of the web role."""
    answers = _Answers(sources)
    return Starlette(
        routes=[
            Route("/", answers.status_page, methods=["GET"]),
            Route("/health", answers.health, methods=["GET"]),
            Route("/ready", answers.ready, methods=["GET"]),
            Route("/metrics", answers.metrics, methods=["GET"]),
        ],
        middleware=[Middleware(StrictHeaders)],
        exception_handlers={StorageError: _unavailable},
    )


class _Answers:
    """One method a path; they wait for the catalogue, hence starlette runs them in threads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def health(self, request: Request) -> Response:
        """200 as long as the process answers."""
        del request
        return JSONResponse({"status": "alive"})

    def ready(self, request: Request) -> Response:
        """200, or 503 with the reason of every check that fails."""
        del request
        reasons = failing(self._sources.checks)
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200
        )

    def metrics(self, request: Request) -> Response:
        """Prometheus's text."""
        del request
        text = metrics.exposition(self._sources.reading())
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    def status_page(self, request: Request) -> Response:
        """What `hounsfield status` shows, as a page."""
        del request
        reasons = failing(self._sources.checks)
        html = page.render(self._sources.reading(), self._sources.overview(), reasons)
        return HTMLResponse(html, headers={"Content-Security-Policy": page.POLICY})


def _unavailable(request: Request, error: Exception) -> Response:
    """The catalogue failed: in words for the caller, with its place for the log."""
    del request
    log.failure("failure", error, detail="the catalogue does not answer")
    return JSONResponse({"error": "the catalogue does not answer"}, status_code=503)
