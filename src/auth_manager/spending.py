"""What one request spends: round trips to the database, password hashes, calls to AWS.

The units that a budget is written in (budgets.py), because they cost the same on every machine.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Expense:
    """How often, and for how many seconds together."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Spent:
    """The expenses of one request; worker threads that serve it add to the same."""

    round_trips: Expense = field(default_factory=Expense)
    hashes: Expense = field(default_factory=Expense)
    aws_calls: Expense = field(default_factory=Expense)


_current: ContextVar[Spent | None] = ContextVar("spent", default=None)


def begin() -> Spent:
    """Count from here on, for this request alone."""
    spent = Spent()
    _current.set(spent)
    return spent


@contextmanager
def spending(kind: str) -> Generator[None]:
    """Count one expense, a field of Spent by name, also when it fails; outside a request nothing."""
    spent = _current.get()
    if spent is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        expense: Expense = getattr(spent, kind)
        expense.count += 1
        expense.seconds += time.perf_counter() - started


@contextmanager
def overhead() -> Generator[None]:
    """Count nothing until it ends: what the process does for itself, in whichever request comes by."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
