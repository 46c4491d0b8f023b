"""Timing: short actions, taken in turns, so that what else the machine does falls on all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Action = Callable[[], object]


def take_turns(actions: Mapping[str, Action], *, rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Run every action once a round; return the seconds of each call. The order turns with the rounds."""
    for action in actions.values():
        for _ in range(warm_up):
            action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    names = list(actions)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(time_once(actions[name]))
    return seconds


def time_once(action: Action) -> float:
    """Return how many seconds one call took."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return statistics.median(seconds) * 1000


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """Return the smallest sample, in milliseconds, that so many per cent do not exceed (nearest rank)."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] * 1000
