"""`make local`: the whole service on a laptop, with nothing to install and nothing to configure.

An embedded PostgreSQL keeps its data under `.local/`, keys are generated there once, mail ends in a mailbox
there, and everything that the environment sets (AUTH_*) wins over what is chosen here.
"""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from auth_manager.entrypoints import server
from auth_manager.errors import ConfigurationError
from auth_manager.local.keys import load_or_generate_local_keys
from auth_manager.local.postgres import EmbeddedPostgres, NotStarted, start_embedded
from auth_manager.migrate import apply_migrations
from auth_manager.settings import load_settings

STATE = Path(".local")

FIRST_CALLS = """\
Auth Manager serves on {url} (docs: {url}/docs). Try:

  curl -X POST {url}/auth/register -H 'Content-Type: application/json' \
-d '{{"email":"test@example.com","username":"testuser","password":"SecurePass123!"}}'
  curl -X POST {url}/auth/login    -H 'Content-Type: application/json' \
-d '{{"email":"test@example.com","password":"SecurePass123!"}}'

Ctrl-C stops everything; the users stay in {state}/.
"""

MAIL_HINT = """\
Mail leaves this machine by no transport: read it at {url}/dev/mailbox.
"""


def run(*, host: str = "127.0.0.1", port: int = 8000, state: Path = STATE) -> None:
    """Start the database, migrate it, and serve until Ctrl-C."""
    # Until uvicorn takes the signals over, and for the database's sake: SIGTERM stops like Ctrl-C, which is
    # said outright because what is started without job control is born deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        database_url = os.environ.get("AUTH_DATABASE_URL")
        if not database_url:
            database_url = stack.enter_context(_start_database(state / "postgres")).url
        apply_migrations(database_url)
        url = f"http://{host}:{port}"
        defaults: dict[str, object] = {
            "mode": "local",
            "public_url": url,
            "docs_enabled": True,
            "database_url": database_url,
            "mail_transport": "mailbox",
        }
        if not {"AUTH_PUBLIC_URL", "AUTH_PASSKEY_RP_ID", "AUTH_PASSKEY_ORIGINS"} & os.environ.keys():
            # No browser has passkeys for an IP address.
            defaults |= {"passkey_rp_id": "localhost", "passkey_origins": f"http://localhost:{port}"}
        if not any(f"AUTH_SIGNING_KEYS{suffix}" in os.environ for suffix in ("", "_FILE", "_SECRET_ARN")):
            keys = load_or_generate_local_keys(state / "keys")
            defaults |= {"signing_keys_file": str(keys.signing_keys_file), "secret_keys": keys.secret_keys}
        chosen = {name: value for name, value in defaults.items() if f"AUTH_{name.upper()}" not in os.environ}
        settings = load_settings(**chosen)
        sys.stdout.write(FIRST_CALLS.format(url=url, state=state))
        if settings.mail_transport == "mailbox":
            sys.stdout.write(MAIL_HINT.format(url=url))
        sys.stdout.flush()
        server.serve(settings, host=host, port=port, mailbox=state / "mailbox")


def _start_database(directory: Path) -> EmbeddedPostgres:
    try:
        return start_embedded(directory)
    except NotStarted as error:
        raise ConfigurationError(f"the embedded PostgreSQL did not start: {error}") from error
