"""The Lambda function for what no client asks for: migrations, clean-up, messages, backups, key rotation.

It takes `{"action": "migrate" | "clean_up" | "relay_outbox" | "chain_audit" | "checkpoint_audit" | "back_up"
| "rotate_signing_keys"}` and the rotation events of Secrets Manager. A failure is an error of the function:
it shows in its Errors, and is tried again.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, get_args

from auth_manager import maintenance, observability
from auth_manager.app import connect_database
from auth_manager.audit import Origin
from auth_manager.aws.database_access import open_database_url
from auth_manager.aws.queues import send_ids
from auth_manager.aws.rotated_secret import open_secret
from auth_manager.aws.secrets import fetch_secret
from auth_manager.backups.retention import Keep, delete_old
from auth_manager.backups.writing import back_up
from auth_manager.entrypoints import checkpoint_places
from auth_manager.entrypoints.backup_places import open_place
from auth_manager.errors import ConfigurationError
from auth_manager.ids import new_id
from auth_manager.key_rotation import Step, rotate
from auth_manager.migrate import apply_migrations
from auth_manager.settings import Settings, load_settings
from auth_manager.signing_keys import load_key_set

STEPS: tuple[Step, ...] = get_args(Step)

RESERVE_MILLISECONDS = 10_000
"""What is left of the function's time when no further batch begins."""

Event = Mapping[str, Any]


class UnknownEvent(ValueError):
    """An event that asks for nothing we do."""


def handler(event: object, context: Any) -> dict[str, Any]:  # noqa: ANN401 -- Lambda's own type
    """Do what the event asks, and say what was done.

    Raises:
        UnknownEvent: it asks for nothing we do.
        ConfigurationError: a setting is missing that this needs.
        Exception: whatever went wrong, for Lambda to count and to try again.
    """
    settings = load_settings()
    observability.configure_logging(settings)
    observability.enable_metrics()
    request_id = getattr(context, "aws_request_id", None) or str(new_id())
    token = observability.request_id.set(request_id)
    try:
        return _choose(event)(settings, context)
    except Exception as error:
        observability.log_failure("maintenance_failed", error)
        raise
    finally:
        observability.flush_metrics()
        observability.request_id.reset(token)


def _choose(event: object) -> Callable[[Settings, Any], dict[str, Any]]:
    if not isinstance(event, Mapping):
        raise UnknownEvent("not an object")
    if "Step" in event:
        return partial(_take_rotation_step, event)
    actions: dict[object, Callable[[Settings, Any], dict[str, Any]]] = {
        "migrate": _migrate,
        "clean_up": _clean_up,
        "relay_outbox": _relay_outbox,
        "chain_audit": _chain_audit,
        "checkpoint_audit": _checkpoint_audit,
        "back_up": _back_up,
        "rotate_signing_keys": partial(_rotate_signing_keys, emergency=event.get("emergency") is True),
    }
    action = event.get("action")
    if not isinstance(action, str) or action not in actions:
        raise UnknownEvent(f"no such action; there are {', '.join(map(str, actions))}")
    return actions[action]


def _migrate(settings: Settings, _context: object) -> dict[str, Any]:
    applied = apply_migrations(open_database_url(settings, fetch_secret).url())
    names = [migration.file_name for migration in applied]
    observability.log_event("migrated", applied=names)
    return {"applied": names}


def _clean_up(settings: Settings, context: object) -> dict[str, Any]:
    database = connect_database(settings, pool_size=1, fetch_secret=fetch_secret)
    try:
        removed = maintenance.clean_up(
            database,
            now=datetime.now(UTC),
            session_retention=timedelta(seconds=settings.session_retention),
            outbox_retention=timedelta(seconds=settings.outbox_retention),
            may_go_on=partial(_has_time, context),
        )
        origin = Origin(
            address=None,
            user_agent="",
            request_id=observability.request_id.get(),
            now=datetime.now(UTC),
            locale=settings.default_locale,
        )
        erased = maintenance.erase_accounts(database, origin, may_go_on=partial(_has_time, context))
        maintenance.chain_audit(database, may_go_on=partial(_has_time, context))
    finally:
        database.close()
    return {"removed": removed, "erased": erased}


def _chain_audit(settings: Settings, context: object) -> dict[str, Any]:
    database = connect_database(settings, pool_size=1, fetch_secret=fetch_secret)
    try:
        return {"chained": maintenance.chain_audit(database, may_go_on=partial(_has_time, context))}
    finally:
        database.close()


def _checkpoint_audit(settings: Settings, context: object) -> dict[str, Any]:
    """Chain and sign; a checkpoint that could not be kept elsewhere is tried again by the next run."""
    database = connect_database(settings, pool_size=1, fetch_secret=fetch_secret)
    try:
        checkpoint = maintenance.checkpoint_audit(
            database,
            load_key_set(settings, fetch_secret),
            issuer=settings.issuer,
            now=datetime.now(UTC),
            keep=checkpoint_places.keeper(settings, local=False),
            may_go_on=partial(_has_time, context),
        )
    finally:
        database.close()
    return {"position": checkpoint.position if checkpoint else None}


def _relay_outbox(settings: Settings, context: object) -> dict[str, Any]:
    if not settings.outbox_queue_url:
        return {"relayed": 0, "failed": 0, "reason": "AUTH_OUTBOX_QUEUE_URL is not set: messages wait"}
    database = connect_database(settings, pool_size=1, fetch_secret=fetch_secret)
    try:
        return dict(
            maintenance.relay_outbox(
                database,
                partial(send_ids, settings.outbox_queue_url),
                now=datetime.now(UTC),
                mails=settings.mail_transport != "none",
                may_go_on=partial(_has_time, context),
            )
        )
    finally:
        database.close()


def _back_up(settings: Settings, context: object) -> dict[str, Any]:
    """Store a snapshot, then delete what is no longer kept; without enough time there is no backup."""
    if not settings.backup_url:
        return {"id": None, "reason": "AUTH_BACKUP_URL is not set: there is no backup"}
    try:
        storage = open_place(settings.backup_url, kms_key=settings.backup_kms_key, local=False)
        manifest = back_up(
            open_database_url(settings, fetch_secret).url(),
            storage,
            now=datetime.now(UTC),
            may_go_on=partial(_has_time, context),
        )
    except Exception:
        observability.count("backup_failed")
        raise
    observability.count("backup_completed")
    keep = Keep(settings.backup_keep_daily, settings.backup_keep_weekly, settings.backup_keep_monthly)
    deleted = delete_old(storage, keep, now=datetime.now(UTC))
    observability.log_event(
        "backed_up", id=manifest.id, rows=manifest.rows, bytes=manifest.size, deleted=deleted
    )
    return {"id": manifest.id, "rows": manifest.rows, "bytes": manifest.size, "deleted": deleted}


def _rotate_signing_keys(settings: Settings, _context: object, *, emergency: bool) -> dict[str, Any]:
    """Take all four steps at once; in an emergency no key of before stays."""
    token = str(new_id())
    for step in STEPS:
        _rotate(settings, step, token, replace_all=emergency)
    return {"rotated": True, "emergency": emergency}


def _take_rotation_step(event: Event, settings: Settings, _context: object) -> dict[str, Any]:
    step, token = event["Step"], event.get("ClientRequestToken")
    if step not in STEPS or not isinstance(token, str):
        raise UnknownEvent("no such step of a rotation")
    if event.get("SecretId") != settings.signing_keys_secret_arn:
        raise UnknownEvent("a rotation of another secret than AUTH_SIGNING_KEYS_SECRET_ARN")
    _rotate(settings, step, token)
    return {"step": step}


def _rotate(settings: Settings, step: Step, token: str, *, replace_all: bool = False) -> None:
    if not settings.signing_keys_secret_arn:
        raise ConfigurationError("AUTH_SIGNING_KEYS_SECRET_ARN is not set")
    try:
        rotate(
            step,
            token,
            open_secret(settings.signing_keys_secret_arn),
            algorithm=settings.signing_algorithm,
            token_lifetime=timedelta(seconds=settings.access_token_lifetime),
            now=datetime.now(UTC),
            replace_all=replace_all,
        )
    except Exception:
        observability.count("key_rotation_failed")
        raise
    observability.log_event("rotation_step_taken", step=step, version=token, emergency=replace_all)


def _has_time(context: Any) -> bool:  # noqa: ANN401 -- Lambda's own type
    """Tell whether another batch may begin; without Lambda's clock there is no hurry."""
    if context is None:
        return True
    remaining: int = context.get_remaining_time_in_millis()
    return remaining > RESERVE_MILLISECONDS
