"""A secret that is kept elsewhere, and what was read from it: fetched anew by age, and on demand."""

import time
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from auth_manager.errors import ConfigurationError, ServiceUnavailable
from auth_manager.observability import count, log_event
from auth_manager.spending import overhead

LIFETIME = 300.0
"""Seconds after which a text is fetched again."""

RETRY_AFTER = 10.0
"""Seconds between two fetches that a failure, or a value that did not work, asks for."""

ValueT = TypeVar("ValueT")


class CachedSecret(Generic[ValueT]):
    """What one secret says, at most `lifetime` seconds old while its store answers.

    While it does not, or says what cannot be used, the last good value is served for as long as the process
    lives: a secret that worked a minute ago is better than no service, and a rotation keeps old keys valid
    for hours.

    There is no lock: threads that meet in a fetch fetch the same text. A fetch is no expense of the request
    that happens to wait for it.
    """

    def __init__(
        self,
        fetch: Callable[[], str],
        read: Callable[[str], ValueT],
        *,
        lifetime: float = LIFETIME,
        retry_after: float = RETRY_AFTER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Fetch and read for the first time.

        Args:
            fetch: returns the text or raises ServiceUnavailable.
            read: makes the value of it or raises ConfigurationError; called for each new text.
            lifetime: seconds until it is fetched again.
            retry_after: seconds between two fetches, after a failure or a value that did not work.
            clock: seconds; the wall clock, which goes on while a sandbox is frozen.

        Raises:
            ServiceUnavailable: it cannot be fetched now.
            ConfigurationError: it cannot be used.
        """
        self._fetch = fetch
        self._read = read
        self._lifetime = lifetime
        self._retry_after = retry_after
        self._clock = clock
        self._tried_at = clock()
        try:
            self._text = self._fetch_text()
        except ServiceUnavailable:
            count("signing_key_load_failure")
            raise
        self._value = read(self._text)
        self._fetch_again_at = self._tried_at + lifetime

    @classmethod
    def fixed(cls, value: ValueT) -> Self:
        """Return what looks like a secret and never changes: a value of the environment."""
        return cls(lambda: "", lambda _: value, lifetime=float("inf"), retry_after=float("inf"))

    def get(self) -> ValueT:
        """Return the value, fetched when it is old; usually a comparison and nothing else."""
        if self._clock() < self._fetch_again_at:
            return self._value
        return self.refresh()

    def refresh(self) -> ValueT:
        """Fetch because the value did not work; not within `retry_after` seconds of the fetch before."""
        now = self._clock()
        if now - self._tried_at < self._retry_after:
            return self._value
        self._tried_at = now
        self._fetch_again_at = now + self._retry_after
        try:
            text = self._fetch_text()
            if text != self._text:
                self._value = self._read(text)
                self._text = text
        except (ServiceUnavailable, ConfigurationError) as error:
            count("signing_key_load_failure")
            log_event("secret_served_from_cache", reason=type(error).__name__)
        else:
            self._fetch_again_at = now + self._lifetime
        return self._value

    def _fetch_text(self) -> str:
        with overhead():
            return self._fetch()
