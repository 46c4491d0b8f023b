"""Logs, metrics and traces, all by Powertools for AWS Lambda.

No secret, token, e-mail address or exception message is ever logged: a psycopg2 error quotes the statement
with its values. `log_failure` writes the exception's type, its SQLSTATE and where it came from.
"""

import json
import logging
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics, Tracer

    from auth_manager.settings import Settings

NAMESPACE = "AuthManager"

METRICS = (
    "registered",
    "email_verified",
    "email_changed",
    "password_reset",
    "password_changed",
    "reauthenticated",
    "account_erased",
    "login_succeeded",
    "login_failed",
    "account_locked",
    "factor_refused",
    "mfa_reset",
    "passkey_counter_regressed",
    "totp_secret_unreadable",
    "lazily_migrated",
    "lazy_migration_unavailable",
    "refresh_token_reused",
    "db_connection_failed",
    "signing_key_load_failure",
    "expired_rows_removed",
    "outbox_relayed",
    "outbox_failed",
    "hand_over_failed",
    "mail_sent",
    "mail_refused",
    "webhook_sent",
    "webhook_failed",
    "webhook_disabled",
    "key_rotation_failed",
    "audit_events_chained",
    "audit_chain_broken",
    "backup_completed",
    "backup_failed",
    "round_trips",
    "hashes",
    "aws_calls",
)
"""Every metric, each a Count with the one dimension `service` (docs/operations.md)."""

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request being answered; follows it into worker threads."""


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class ReadableFormatter(logging.Formatter):
    """One line a person can read: time, level, what happened, its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record; values are JSON, which escapes line breaks (ASVS 16.4.1)."""
        fields = " ".join(
            f"{key}={json.dumps(value, default=str)}" for key, value in getattr(record, "fields", {}).items()
        )
        message = json.dumps(record.getMessage(), ensure_ascii=False)[1:-1]
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} {message} {fields}".rstrip()
        return f"{line} request_id={getattr(record, 'request_id', '-')}"


class _Telemetry:
    """The process's sinks; entry points switch them on."""

    service = "unconfigured"
    logger: Logger | None = None
    readable = False
    metrics: "Metrics | None" = None
    tracer: "Tracer | None" = None


def configure_logging(settings: "Settings") -> None:
    """Send structured logs to standard output: JSON, or readable lines in local mode.

    First of all: metrics and traces go by the same name, AUTH_SERVICE_NAME, which keeps two stacks apart.
    """
    _Telemetry.service = settings.service_name
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_RequestId())
    logger = Logger(
        service=_Telemetry.service,
        level=settings.log_level,
        logger_handler=handler,
        logger_formatter=None,
    )
    logging.getLogger("mangum").setLevel(logging.WARNING)  # it would log every request a second time
    _Telemetry.readable = settings.is_local
    if settings.is_local:
        handler.setFormatter(ReadableFormatter())
    _Telemetry.logger = logger


def enable_metrics() -> None:
    """Collect metrics in CloudWatch's embedded metric format until `flush_metrics`."""
    from aws_lambda_powertools import Metrics  # noqa: PLC0415 -- only inside Lambda

    _Telemetry.metrics = Metrics(namespace=NAMESPACE, service=_Telemetry.service)


def enable_tracing() -> "Tracer":
    """Start X-Ray. Construct the tracer only here: it loads the SDK even when disabled.

    Nothing is patched: the SDK's psycopg2 wrapper records the message of every error, and PostgreSQL quotes
    the statement with its values in there (ASVS 16.2.5). `trace` marks what is worth seeing instead.
    """
    from aws_lambda_powertools import Tracer  # noqa: PLC0415 -- the X-Ray SDK costs as much as FastAPI

    _Telemetry.tracer = Tracer(service=_Telemetry.service, auto_patch=False)
    return _Telemetry.tracer


@contextmanager
def trace(name: str) -> Generator[None]:
    """Show a call to another system in the trace, if there is one; of a failure only that it was one."""
    if _Telemetry.tracer is None:
        yield
        return
    recorder: Any = _Telemetry.tracer.provider
    # Not the SDK's own context manager, which records the message of an error.
    subsegment = recorder.begin_subsegment(name, namespace="remote")
    try:
        yield
    except BaseException:
        if subsegment is not None:
            subsegment.add_fault_flag()
        raise
    finally:
        recorder.end_subsegment()


def count(metric: str, value: int = 1) -> None:
    """Add to a metric of METRICS."""
    if metric not in METRICS:
        raise ValueError(f"{metric} is not a documented metric")
    if _Telemetry.metrics is not None:
        _Telemetry.metrics.add_metric(name=metric, unit="Count", value=value)


def flush_metrics() -> None:
    """Write the metrics of this invocation to the log."""
    if _Telemetry.metrics is not None and _Telemetry.metrics.metric_set:
        _Telemetry.metrics.flush_metrics()


def log_event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log what happened, with fields that hold no secret and no personal data but ids and addresses."""
    logger = _Telemetry.logger
    if logger is None:
        return
    write = logger.error if level >= logging.ERROR else logger.info
    write(name, extra={"fields": fields} if _Telemetry.readable else fields, stacklevel=3)


def log_failure(name: str, error: BaseException, **fields: object) -> None:
    """Log an error without its message, which may quote what was submitted."""
    details: dict[str, Any] = {
        "error": type(error).__qualname__,
        "sqlstate": getattr(error, "pgcode", None) or getattr(error.__cause__, "pgcode", None),
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in _frames(error)],
    }
    if error.__cause__ is not None:
        details["cause"] = type(error.__cause__).__qualname__
    log_event(name, level=logging.ERROR, **details, **fields)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return traceback.extract_tb(error.__traceback__)[-8:]
