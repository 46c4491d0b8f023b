"""Reading our own export: header, users, trailer."""

import hashlib
import io
import json
from typing import Any

import pytest

from auth_manager.imports import own_export
from auth_manager.imports.refusals import FileUnreadable, Refused

USERS = [b'{"email":"a@example.com"}\n', b'{"email":"b@example.com"}\n']


def line(**members: Any) -> bytes:
    value = {"format": "auth-manager-export"} | members
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


HEADER = line(version=1, users=2)
BODY = HEADER + b"".join(USERS)
TRAILER = line(end=True, users=2, sha256=hashlib.sha256(BODY).hexdigest())


def read(content: bytes) -> list[Any]:
    return [item.record for item in own_export.read(io.BytesIO(content))]


class TestRead:
    def test_header_and_trailer_are_no_users(self) -> None:
        assert read(BODY + TRAILER) == [json.loads(user) for user in USERS]

    def test_other_json_lines_are_read_as_they_are(self) -> None:
        assert read(b"".join(USERS)) == [json.loads(user) for user in USERS]
        assert read(b"[" + b",".join(USERS) + b"]") == [json.loads(user) for user in USERS]
        assert isinstance(read(b"x\n")[0], Refused)


class TestCheckWhole:
    def test_a_whole_one_has_its_header(self) -> None:
        file = io.BytesIO(BODY + TRAILER)
        assert own_export.check_whole(file) == json.loads(HEADER)
        assert file.tell() == 0

    @pytest.mark.parametrize("content", [b"", b"x", b"".join(USERS)])
    def test_another_file_is_none(self, content: bytes) -> None:
        assert own_export.check_whole(io.BytesIO(content)) is None

    @pytest.mark.parametrize("cut", [len(HEADER), len(BODY) - 30, len(BODY), len(BODY) + 10])
    def test_one_that_is_cut_short_is_refused(self, cut: int) -> None:
        with pytest.raises(FileUnreadable, match="cut off"):
            own_export.check_whole(io.BytesIO((BODY + TRAILER)[:cut]))

    @pytest.mark.parametrize(
        "content",
        [
            BODY.replace(b"a@", b"c@") + TRAILER,
            HEADER + USERS[0] + TRAILER,
            BODY + USERS[0] + TRAILER,
            BODY + TRAILER + USERS[0],
            BODY.replace(b'"version":1', b'"version":2') + TRAILER,
        ],
        ids=["changed", "one less", "one more", "longer", "later version"],
    )
    def test_one_that_was_changed_is_refused(self, content: bytes) -> None:
        with pytest.raises(FileUnreadable):
            own_export.check_whole(io.BytesIO(content))
