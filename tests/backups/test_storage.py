"""The directory of backups: for its owner alone, and what it says when something is wrong."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from auth_manager.backups import StorageFailed
from auth_manager.backups.storage import Directory


def put(place: Directory, name: str, content: bytes) -> None:
    writer = place.create(name)
    try:
        writer.write(content)
        writer.commit()
    finally:
        writer.abort()


class TestDirectory:
    def test_it_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        previous = os.umask(0)
        try:
            put(Directory(tmp_path / "a" / "b"), "id/part", b"x")
        finally:
            os.umask(previous)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
        assert modes == {"b": 0o700, "id": 0o700, "part": 0o600}

    def test_a_file_has_its_name_when_it_is_whole(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        writer = place.create("id/part")
        writer.write(b"ab")
        assert [item.name for item in place.list_objects()] == ["id/part.partial"]
        with pytest.raises(LookupError):
            place.open("id/part")
        writer.commit()
        writer.abort()
        assert [(item.name, item.size) for item in place.list_objects()] == [("id/part", 2)]
        reader = place.open("id/part")
        assert (reader.read(10), reader.read(10)) == (b"ab", b"")
        reader.close()

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        writer = Directory(tmp_path).create("id/part")
        writer.write(b"ab")
        writer.abort()
        assert list(tmp_path.iterdir()) == []

    def test_what_a_kill_left_is_in_nobodys_way(self, tmp_path: Path) -> None:
        """A checkpoint has the same name when it is kept once more."""
        place = Directory(tmp_path)
        (tmp_path / "2030-01-02-345.json.partial").write_bytes(b"x")
        put(place, "2030-01-02-345.json", b"y")
        assert [path.name for path in tmp_path.iterdir()] == ["2030-01-02-345.json"]

    def test_deleting_twice_is_deleting(self, tmp_path: Path) -> None:
        place = Directory(tmp_path)
        put(place, "id/part", b"x")
        place.delete(["id/part", "id/none"])
        place.delete(["id/part"])
        assert list(tmp_path.iterdir()) == []

    def test_where_there_is_none_it_is_empty(self, tmp_path: Path) -> None:
        assert list(Directory(tmp_path / "none").list_objects()) == []

    def test_a_file_in_its_place_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StorageFailed, match=r"Not a directory|File exists"):
            put(Directory(tmp_path / "file"), "id/part", b"x")

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_a_directory_of_somebody_else_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(StorageFailed, match="Permission denied"):
            put(Directory(tmp_path / "closed"), "id/part", b"x")

    def test_permissions_are_said_as_another_user(self, tmp_path: Path) -> None:
        """Also where the tests run as root."""
        if os.geteuid() != 0:
            pytest.skip("only root can become somebody else")
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        for path in (tmp_path, *tmp_path.parents[:-2]):
            path.chmod(path.stat().st_mode | 0o011)
        code = (
            "import os, sys; from pathlib import Path; from auth_manager.backups.storage import Directory\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: Directory(Path(sys.argv[1])).create('id/part')\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(closed)], capture_output=True, text=True, check=True
        )
        assert ended.stdout.startswith("StorageFailed ")
        assert "Permission denied" in ended.stdout

    def test_a_full_disk_is_said_and_leaves_nothing(self, tmp_path: Path) -> None:
        """By a limit on the size of files, as a disk of a test's own would need root."""
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from auth_manager.backups.storage import Directory\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "writer = Directory(Path(sys.argv[1])).create('id/part')\n"
            "try: writer.write(bytes(1 << 20))\n"
            "except Exception as error: print(type(error).__name__, error)\n"
            "finally: writer.abort()"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "b")], capture_output=True, text=True, check=True
        )
        assert ended.stdout.startswith(f"StorageFailed {tmp_path / 'b/id/part'}: File too large (")
        assert "KiB are free there" in ended.stdout
        assert list((tmp_path / "b").iterdir()) == []
