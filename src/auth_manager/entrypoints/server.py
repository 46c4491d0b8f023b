"""The server mode: uvicorn, on a laptop or in any container platform."""

import uvicorn

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.settings import Settings
from auth_manager.web.calls import run_in_thread


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests that run.

    The client's address is the network peer; X-Forwarded-* is ignored, since anyone can send it. Behind a
    proxy every client then shares the proxy's limits: use the Lambda mode, or serve without one.
    """
    observability.configure_logging(settings)
    resources = build_resources(settings)
    try:
        uvicorn.run(
            create_app(resources, runner=run_in_thread),
            host=host,
            port=port,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=10,
        )
    finally:
        resources.database.close()
