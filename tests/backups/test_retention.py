"""Which backups are kept."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from auth_manager.backups import BackupError
from auth_manager.backups.archive import make_id
from auth_manager.backups.retention import Found, Keep, choose_kept, delete_old, find_backup, list_backups
from auth_manager.backups.storage import Directory

NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)
WEEK = Keep(daily=7, weekly=5, monthly=12)


def found(at: datetime, *, complete: bool = True, number: int = 0) -> Found:
    return Found(make_id(at, number.to_bytes(4)), at, complete, 1, at, ())


def nights(count: int, until: datetime = NOW) -> list[Found]:
    return [found(until - timedelta(days=day)) for day in range(count)]


class TestChooseKept:
    def test_days_weeks_and_months(self) -> None:
        kept = sorted((time for time in choose_kept(nights(800), WEEK)), reverse=True)
        days = [f"{name[:4]}-{name[4:6]}-{name[6:8]}" for name in kept]
        assert days == [
            "2026-11-22", "2026-11-21", "2026-11-20", "2026-11-19", "2026-11-18", "2026-11-17", "2026-11-16",
            "2026-11-15", "2026-11-08", "2026-11-01",  # Sundays; the fifth week is that of 25 October
            "2026-10-31", "2026-10-25", "2026-09-30", "2026-08-31", "2026-07-31", "2026-06-30", "2026-05-31",
            "2026-04-30", "2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31",
        ]  # fmt: skip

    def test_several_a_day_leave_the_youngest(self) -> None:
        hours = [found(NOW - timedelta(hours=hour), number=hour) for hour in range(2)]
        assert choose_kept(hours, Keep(3, 0, 0)) == {hours[0].id}

    def test_the_youngest_stays_whatever_is_set(self) -> None:
        backups = nights(3)
        assert choose_kept(backups, Keep(0, 0, 0)) == {backups[0].id}

    def test_periods_without_a_backup_do_not_count(self) -> None:
        old = nights(7, NOW - timedelta(days=500))
        assert choose_kept(old, WEEK) == {one.id for one in old}

    def test_what_is_not_complete_is_none(self) -> None:
        unfinished = found(NOW, complete=False)
        backups = nights(2, NOW - timedelta(days=1))
        assert choose_kept([unfinished, *backups], Keep(1, 0, 0)) == {backups[0].id}
        assert choose_kept([unfinished], WEEK) == set()


def store(place: Directory, at: datetime, *names: str) -> str:
    backup_id = make_id(at, bytes(4))
    for name in names:
        writer = place.create(f"{backup_id}/{name}")
        writer.write(b"x")
        writer.commit()
    return backup_id


class TestDeleteOld:
    def test_only_what_is_kept_stays(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        ids = [store(place, NOW - timedelta(days=day), "a.copy.gz", "manifest.json") for day in range(4)]
        assert delete_old(place, Keep(2, 0, 0), now=NOW) == ids[2:]
        assert [one.id for one in list_backups(place)] == ids[:2]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ids[:2])

    def test_what_was_never_completed_goes_after_a_day(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        whole = store(place, NOW, "manifest.json")
        abandoned = store(place, NOW - timedelta(days=3), "a.copy.gz")
        written_at = (tmp_path / abandoned / "a.copy.gz").stat().st_mtime
        soon = datetime.fromtimestamp(written_at, UTC) + timedelta(hours=23)
        assert delete_old(place, WEEK, now=soon) == []
        assert delete_old(place, WEEK, now=soon + timedelta(hours=2)) == [abandoned]
        assert [one.id for one in list_backups(place)] == [whole]

    def test_what_a_clock_that_was_ahead_left_costs_no_other(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        ahead = store(place, NOW + timedelta(days=400), "manifest.json")
        new, old = (store(place, NOW - timedelta(days=day), "manifest.json") for day in range(2))
        assert delete_old(place, Keep(1, 0, 0), now=NOW) == [old]
        assert [one.id for one in list_backups(place)] == [ahead, new]

    def test_without_a_complete_one_nothing_is_deleted(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        abandoned = store(place, NOW - timedelta(days=3), "a.copy.gz")
        assert delete_old(place, WEEK, now=NOW + timedelta(days=9999)) == []
        assert [one.id for one in list_backups(place)] == [abandoned]

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        store(place, NOW, "manifest.json")
        for name in ("precious", "20200101T000000Z"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("x")
        (tmp_path / make_id(NOW - timedelta(days=3), bytes(4))).write_text("x")
        before = sorted(tmp_path.rglob("*"))
        assert delete_old(place, Keep(1, 0, 0), now=NOW + timedelta(days=9999)) == []
        assert sorted(tmp_path.rglob("*")) == before


class TestFindBackup:
    def test_the_latest_is_the_youngest_complete_one(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        whole = store(place, NOW - timedelta(days=1), "manifest.json")
        partial = store(place, NOW, "a.copy.gz")
        assert find_backup(place, "latest").id == whole
        assert find_backup(place, whole).id == whole
        with pytest.raises(BackupError, match="not completed"):
            find_backup(place, partial)

    @pytest.mark.parametrize("wanted", ["latest", "20261122T120000.000000Z-00112233", "../x"])
    def test_there_is_none(self, tmp_path: Path, wanted: str) -> None:
        with pytest.raises(BackupError, match="there is no"):
            find_backup(Directory(tmp_path / "none"), wanted)
