"""SnapStart, with a fork in place of the snapshot: twins that share a memory, and nothing that must differ.

What a fork cannot show is OpenSSL's own state: it notices a fork by itself, and would not notice a restore.
"""

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from auth_manager.entrypoints import lambda_snapshot

TWINS = """\
import gc, json, os, random, sys
import psycopg2.extensions, snapshot_restore_py
from auth_manager.entrypoints.lambda_api import handler
from auth_manager.ids import new_id

def ask(path, body):
    http = {"method": "POST", "path": path, "sourceIp": "203.0.113.7"}
    event = {"version": "2.0", "headers": {"content-type": "application/json"},
             "requestContext": {"http": http}, "body": json.dumps(body)}
    answer = handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])

def backends():
    found = (one for one in gc.get_objects() if isinstance(one, psycopg2.extensions.connection))
    return [one.info.backend_pid for one in found if not one.closed]

person = {"email": "twins@example.com", "password": "a long and dull passphrase"}
assert ask("/auth/register", person)[0] == 201
random.seed(1)
warm = backends()
for function, arguments, named in reversed(snapshot_restore_py.get_before_snapshot()):
    function(*arguments, **named)
stored = backends()
reading, writing = zip(*(os.pipe() for _ in range(2)))
for twin in range(2):
    if os.fork() == 0:
        for function, arguments, named in snapshot_restore_py.get_after_restore():
            function(*arguments, **named)
        status, tokens = ask("/auth/login", person)
        told = {"status": status, "tokens": tokens, "ids": [str(new_id()) for _ in range(3)],
                "random": random.random(), "backends": backends()}
        os.write(writing[twin], json.dumps(told).encode() + b"\\n")
        os._exit(0)
twins = [json.loads(os.fdopen(one).readline()) for one in reading]
for _ in range(2):
    os.wait()
print(json.dumps({"warm": warm, "stored": stored, "twins": twins}))
"""


@pytest.fixture
def told(database: object, database_url: str, signing_keys: str) -> dict[str, Any]:
    """What a process says that was warmed, stored and restored twice."""
    assert database
    settings = {
        "AUTH_PUBLIC_URL": "https://auth.example.com",
        "AUTH_DATABASE_URL": database_url,
        "AUTH_SIGNING_KEYS": signing_keys,
        "AUTH_SECRET_KEYS": "0123456789abcdefghijklmnopqrstuvwxyz-test-only",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
    done = subprocess.run(
        [sys.executable, "-c", TWINS], env=inherited | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_twins_share_no_connection_and_no_chance(told: dict[str, Any]) -> None:
    first, second = told["twins"]

    assert len(told["warm"]) == 1, "there was a connection to share"
    assert told["stored"] == []
    assert [twin["status"] for twin in told["twins"]] == [200, 200]
    assert [len(twin["backends"]) for twin in told["twins"]] == [1, 1]
    assert len({*told["warm"], *first["backends"], *second["backends"]}) == 3
    assert len({*first["ids"], *second["ids"]}) == 6
    for name in ("access_token", "refresh_token", "session_id"):
        assert first["tokens"][name] != second["tokens"][name]
    assert first["random"] != second["random"]


def test_reseeding_forgets_what_was(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for _ in range(2):
        random.seed(1)
        lambda_snapshot.reseed()
        drawn.append(random.random())  # noqa: S311 -- this is about it
    assert drawn[0] != drawn[1]
    monkeypatch.delenv("AWS_LAMBDA_INITIALIZATION_TYPE", raising=False)
    assert not lambda_snapshot.is_snapshot()
