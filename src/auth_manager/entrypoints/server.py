"""The server mode: uvicorn, on a laptop or in any container platform."""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import uvicorn

from auth_manager import observability
from auth_manager.app import build_resources, create_app
from auth_manager.aws.queues import hand_over
from auth_manager.entrypoints.mail_delivery import MAILBOX, open_delivery, open_webhook_delivery
from auth_manager.local.mailbox import Mailbox, mailbox_router
from auth_manager.mail.delivery import DeliveryLoop
from auth_manager.resources import Resources
from auth_manager.settings import Settings
from auth_manager.web.calls import run_in_thread
from auth_manager.webhooks.delivery import open_loop


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, mailbox: Path = MAILBOX) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests that run; deliver mails and webhooks meanwhile.

    The client's address is the network peer; X-Forwarded-* is ignored, since anyone can send it. Behind a
    proxy every client then shares the proxy's limits: use the Lambda mode, or serve without one.
    """
    observability.configure_logging(settings)
    with ExitStack() as stack:
        resources = build_resources(settings)
        stack.callback(resources.database.close)
        resources = _deliver(resources, stack, mailbox)
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


def _deliver(resources: Resources, stack: ExitStack, mailbox: Path) -> Resources:
    """Hand messages to the queue, if there is one; else deliver them in threads.

    Webhooks in one of their own, so that a slow endpoint holds up no mail; mails if something can send them.
    """
    settings = resources.settings
    if settings.outbox_queue_url:
        if settings.mail_transport == "none":
            return resources
        return dataclasses.replace(resources, hand_over=partial(hand_over, settings.outbox_queue_url))
    webhooks = open_webhook_delivery(settings, resources.database, resources.secret_keys)
    loops = [open_loop(webhooks)]
    if settings.mail_transport != "none":
        mails = open_delivery(settings, resources.database, resources.one_time_secrets, mailbox=mailbox)
        loops.append(DeliveryLoop(mails))
    for loop in loops:
        loop.start()
        stack.callback(loop.stop)

    def wake(_ids: Sequence[UUID]) -> None:
        for loop in loops:
            loop.wake()

    return dataclasses.replace(resources, hand_over=wake)
