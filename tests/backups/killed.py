"""Runs `auth-manager` commands, each in a child that kills itself (SIGKILL) at a step.

For each line of standard input, {"at": a step or 0 for none, "arguments": [...], "log": a path, "url": of the
database}, it prints {"status": as of os.waitpid, "steps": how many there were, if it lived}. A step is a call
of, or a return from, a function of backups, their places and exports, but for those that run for every row.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import boto3  # for all children: each of them is profiled

from auth_manager.entrypoints import cli

WATCHED = (
    "/auth_manager/backups/",
    "/auth_manager/exports/",
    "/entrypoints/backup_places.py",
    "/aws/backup_storage.py",
    "/cli/exports.py",
)
EVERY_ROW = {"write", "add", "read", "_with_factors", "each_account"}


class Steps:
    def __init__(self, at: int) -> None:
        self.at = at
        self.taken = 0

    def watch(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event not in {"call", "return"} or code.co_name in EVERY_ROW:
            return
        if any(part in code.co_filename for part in WATCHED):
            self.taken += 1
            if self.taken == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(order: dict[str, Any], result: int) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["AUTH_DATABASE_URL"] = order["url"]
    sys.argv = ["auth-manager", *order["arguments"]]
    steps = Steps(order["at"])
    sys.setprofile(steps.watch)
    status = 1
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.setprofile(None)
        os.write(result, str(steps.taken).encode())
        os._exit(status)


def main() -> None:
    boto3.client("s3", region_name="us-east-1")  # reads S3's model, which is cached
    for line in sys.stdin:
        order = json.loads(line)
        Path(order["log"]).touch()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            run(order, writer)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        steps = os.read(reader, 20)
        os.close(reader)
        sys.stdout.write(json.dumps({"status": status, "steps": int(steps or 0)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
