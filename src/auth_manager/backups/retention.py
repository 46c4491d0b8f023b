"""Which backups there are, and which of them are kept: the youngest of so many days, weeks and months."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from auth_manager.backups import BackupError
from auth_manager.backups.archive import MANIFEST, time_of
from auth_manager.backups.storage import Storage

GRACE = timedelta(days=1)
"""For so long after its last part, a backup without a manifest may still be running."""


@dataclass(frozen=True, slots=True)
class Found:
    """A backup that is stored, whole or not."""

    id: str
    created_at: datetime
    is_complete: bool
    size: int
    last_written_at: datetime
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """How many days, weeks and months that have a backup keep their youngest one."""

    daily: int
    weekly: int
    monthly: int


def list_backups(storage: Storage) -> list[Found]:
    """Return the backups of a place, youngest first. What is no part of any is left alone."""
    objects: dict[str, list[Any]] = {}
    for item in storage.list_objects():
        backup_id, slash, _ = item.name.partition("/")
        if slash:
            objects.setdefault(backup_id, []).append(item)
    found = []
    for backup_id, items in objects.items():
        created_at = time_of(backup_id)
        if created_at is None:
            continue
        names = sorted(item.name for item in items)
        found.append(
            Found(
                id=backup_id,
                created_at=created_at,
                is_complete=f"{backup_id}/{MANIFEST}" in names,
                size=sum(item.size for item in items),
                last_written_at=max(item.written_at for item in items),
                names=tuple(names),
            )
        )
    return sorted(found, key=lambda one: one.id, reverse=True)


def find_backup(storage: Storage, wanted: str) -> Found:
    """Return a backup by its id, or the youngest complete one for `latest`.

    Raises:
        BackupError: there is none, or it was not completed.
    """
    backups = list_backups(storage)
    if wanted == "latest":
        youngest = next((one for one in backups if one.is_complete), None)
        if youngest is None:
            raise BackupError(f"there is no complete backup in {storage.url}")
        return youngest
    named = next((one for one in backups if one.id == wanted), None)
    if named is None:
        raise BackupError(f"there is no backup {wanted} in {storage.url}")
    if not named.is_complete:
        raise BackupError(f"{wanted} was not completed: it has no manifest, and cannot be used")
    return named


def choose_kept(backups: Iterable[Found], keep: Keep) -> set[str]:
    """Return the ids of the complete backups to keep. The youngest is always one of them.

    A day, a week (ISO 8601) or a month without a backup does not count, so that a schedule that stood still
    for a year takes nothing with it.
    """
    complete = sorted((one for one in backups if one.is_complete), key=lambda one: one.id, reverse=True)
    kept = {one.id for one in complete[:1]}
    periods = (
        (keep.daily, lambda at: at.date()),
        (keep.weekly, lambda at: at.isocalendar()[:2]),
        (keep.monthly, lambda at: (at.year, at.month)),
    )
    for count, period_of in periods:
        youngest: dict[object, str] = {}
        for one in complete:
            youngest.setdefault(period_of(one.created_at), one.id)
        kept.update(list(youngest.values())[:count])
    return kept


def delete_old(storage: Storage, keep: Keep, *, now: datetime) -> list[str]:
    """Delete what is not kept, and what was never completed; return the ids. Call it after a new backup.

    Without a complete backup nothing is deleted. What a clock that was ahead named is left alone: as the
    youngest it would stand in for the new one.
    """
    backups = [one for one in list_backups(storage) if one.created_at <= now]
    kept = choose_kept(backups, keep)
    if not kept:
        return []
    deleted = []
    for one in backups:
        abandoned = not one.is_complete and one.last_written_at < now - GRACE
        if abandoned or (one.is_complete and one.id not in kept):
            # The manifest first, by itself: what is left of a deletion that was cut short is no backup.
            storage.delete([f"{one.id}/{MANIFEST}"])
            storage.delete(one.names)
            deleted.append(one.id)
    storage.forget_unfinished(now - GRACE)
    return deleted
