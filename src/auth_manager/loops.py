"""Work in the background of a server: in a thread, at once when woken, and every few seconds."""

import threading
from collections.abc import Callable

from auth_manager.observability import log_failure

POLL = 5.0
"""Seconds between two looks for work, where nobody wakes the loop."""

STOP_TIMEOUT = 5.0
"""Seconds that stopping waits for what is being done."""

MayGoOn = Callable[[], bool]
"""Asked before each piece of work."""


class Loop:
    """Does all work that there is, then waits."""

    def __init__(self, name: str, work: Callable[[MayGoOn], None], *, poll: float = POLL) -> None:
        self._work = work
        self._poll = poll
        self._woken = threading.Event()
        self._stopping = threading.Event()
        # A daemon: a server that hangs at the other end does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with what waited since the last run."""
        self._thread.start()

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    def stop(self) -> None:
        """End after what is being done, if that does not take too long."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                self._work(lambda: not self._stopping.is_set())
            except Exception as error:  # noqa: BLE001 -- the database may be down: whatever it is, we try again
                log_failure("delivery_failed", error)
            if not self._stopping.is_set():
                self._woken.wait(self._poll)
