"""The server mode: uvicorn, on a laptop or in any container platform."""

import dataclasses
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvicorn

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.aws.queues import hand_over
from auth_manager.entrypoints.mail_delivery import MAILBOX, open_delivery
from auth_manager.local.mailbox import Mailbox, mailbox_router
from auth_manager.mail.delivery import DeliveryLoop
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.web.calls import run_in_thread


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, mailbox: Path = MAILBOX) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests that run; deliver mail meanwhile.

    The client's address is the network peer; X-Forwarded-* is ignored, since anyone can send it. Behind a
    proxy every client then shares the proxy's limits: use the Lambda mode, or serve without one.
    """
    observability.configure_logging(settings)
    with ExitStack() as stack:
        resources = build_resources(settings)
        stack.callback(resources.database.close)
        resources = _deliver_mail(resources, stack, mailbox)
        app = create_app(resources, runner=run_in_thread)
        if settings.is_local and settings.mail_transport == "mailbox":
            app.include_router(mailbox_router(Mailbox(mailbox), public_url=settings.public_url))
        uvicorn.run(
            app,
            host=host,
            port=port,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=10,
        )


def _deliver_mail(resources: Resources, stack: ExitStack, mailbox: Path) -> Resources:
    """Hand messages to the queue, if there is one; else deliver them in a thread, if something can send."""
    settings = resources.settings
    if settings.outbox_queue_url:
        return dataclasses.replace(resources, hand_over=partial(hand_over, settings.outbox_queue_url))
    if settings.mail_transport == "none":
        return resources
    loop = DeliveryLoop(
        open_delivery(settings, resources.database, resources.one_time_secrets, mailbox=mailbox)
    )
    loop.start()
    stack.callback(loop.stop)
    return dataclasses.replace(resources, hand_over=lambda _ids: loop.wake())
