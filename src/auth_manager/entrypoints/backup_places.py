"""Where backups are, by its URL: a directory, or a bucket of S3."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from auth_manager.aws.backup_storage import open_bucket
from auth_manager.backups.storage import Directory, Storage
from auth_manager.errors import ConfigurationError

DEFAULT = "backups"
"""A directory of the working directory."""


def open_place(url: str, *, kms_key: str = "", local: bool = True) -> Storage:
    """Return the place of a URL: a path, `file:///path`, or `s3://bucket/prefix`.

    Args:
        url: empty for DEFAULT.
        kms_key: of a bucket; empty for S3's own.
        local: whether a directory would outlive this process, which it does not in Lambda.

    Raises:
        ConfigurationError: it is neither.
        StorageFailed: the bucket does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError("AUTH_BACKUP_URL: s3:// and the name of a bucket, then a prefix")
        return open_bucket(parts.netloc, unquote(parts.path).strip("/"), kms_key=kms_key)
    if not local:
        raise ConfigurationError(
            "AUTH_BACKUP_URL: s3://bucket/prefix, as no directory here outlives this run"
        )
    if parts.scheme == "file" and not parts.netloc:
        return Directory(Path(unquote(parts.path)))
    if "://" in url:
        raise ConfigurationError("AUTH_BACKUP_URL: a path, file:///path or s3://bucket/prefix")
    return Directory(Path(url or DEFAULT))
