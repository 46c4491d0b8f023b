"""Where checkpoints of the audit trail are kept outside the database: files, or objects of S3."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from auth_manager.audit_chain.checkpoints import Checkpoint, NoCheckpoint, read_document
from auth_manager.entrypoints.backup_places import open_place
from auth_manager.errors import ConfigurationError
from auth_manager.settings import Settings

_PIECE = 64 * 1024
"""Bytes that are read at once; a checkpoint has some 2,000."""


def keeper(settings: Settings, *, local: bool = True) -> Callable[[Checkpoint], None] | None:
    """Return what stores a checkpoint at AUTH_AUDIT_CHECKPOINT_URL; None where that is not set.

    Args:
        settings: say where, and with which key S3 encrypts.
        local: whether a directory would outlive this process, which it does not in Lambda.

    Raises:
        ConfigurationError: it is no place. What is returned raises StorageFailed.
    """
    url = settings.audit_checkpoint_url
    if not url:
        return None
    if not (local or url.startswith("s3://")):
        raise ConfigurationError(
            "AUTH_AUDIT_CHECKPOINT_URL: s3://bucket/prefix, as no directory outlives this run"
        )

    def keep(checkpoint: Checkpoint) -> None:
        try:
            place = open_place(url, kms_key=settings.backup_kms_key)
        except ConfigurationError:  # which names the setting of the backups
            raise ConfigurationError(
                "AUTH_AUDIT_CHECKPOINT_URL: a directory, or s3://bucket/prefix"
            ) from None
        writer = place.create(checkpoint.file_name)
        try:
            writer.write(checkpoint.document)
            writer.commit()
        except BaseException:
            writer.abort()
            raise

    return keep


def read(place: str) -> Checkpoint:
    """Read a checkpoint from a file, or from an object as in s3://bucket/prefix/2030-01-02-345.json.

    Raises:
        ConfigurationError: there is none, or what is there is none.
        StorageFailed: S3 refused, or did not answer.
    """
    directory, _, name = place.rpartition("/")
    try:
        if place.startswith("s3://"):
            with closing(open_place(directory).open(name)) as reader:
                return read_document(b"".join(iter(lambda: reader.read(_PIECE), b"")))
        with Path(place).open("rb") as file:
            return read_document(file.read())
    except (OSError, LookupError) as error:
        raise ConfigurationError(f"{place}: {getattr(error, 'strerror', None) or 'not there'}") from None
    except NoCheckpoint as error:
        raise ConfigurationError(f"{place}: {error}") from None
