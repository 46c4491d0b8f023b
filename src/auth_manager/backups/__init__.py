"""Backups: a consistent snapshot of every table, in a directory or a bucket, and the way back.

A backup is a set of objects below its id: parts, each the rows of one table as PostgreSQL's COPY writes them,
gzipped; and `manifest.json`, written last, which says what every part has to be. Without a manifest there is
no backup.
"""


class BackupError(Exception):
    """A backup or a restore cannot be done; the message says why, and what to do where we know."""


class StorageFailed(BackupError):
    """The directory or the bucket refused, or did not answer."""


class BackupDamaged(BackupError):
    """What is stored is not what was written."""


class OutOfTime(BackupError):
    """The time that was given is over; nothing was completed."""
