# ruff: noqa: INP001 -- a file of an image is no package
"""The least a function can be; and, when the event says so, one argon2id verification and nothing else."""

from typing import Any

_verify: Any = None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer 200; `{"hash": {"memory_kib", "time_cost", "parallelism"}}` asks for a verification first."""
    if "hash" in event:
        _verify_once(event["hash"])
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": '{"status":"ok"}'}


def _verify_once(parameters: dict[str, int]) -> None:
    global _verify  # noqa: PLW0603 -- a sandbox keeps what it made
    if _verify is None:
        from argon2 import PasswordHasher  # noqa: PLC0415 -- a bare cold start pays for nothing

        hasher = PasswordHasher(
            memory_cost=parameters["memory_kib"],
            time_cost=parameters["time_cost"],
            parallelism=parameters["parallelism"],
        )
        stored = hasher.hash("a long and dull passphrase")
        _verify = lambda: hasher.verify(stored, "a long and dull passphrase")  # noqa: E731 -- kept, not named
    _verify()
