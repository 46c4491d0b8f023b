"""A secret while its store answers, is down, or says nonsense."""

from contextvars import copy_context

import pytest

from auth_manager.cached_secret import LIFETIME, RETRY_AFTER, CachedSecret
from auth_manager.errors import ConfigurationError, ServiceUnavailable
from auth_manager.spending import Spent, begin, spending


class Source:
    """Texts to fetch, or a failure; what was read; and a clock."""

    def __init__(self) -> None:
        self.text: str | None = "1"
        self.fetched = 0
        self.read_texts: list[str] = []
        self.now = 1000.0

    def fetch(self) -> str:
        with spending("aws_calls"):
            self.fetched += 1
            if self.text is None:
                raise ServiceUnavailable
            return self.text

    def read(self, text: str) -> int:
        self.read_texts.append(text)
        if not text.isdigit():
            raise ConfigurationError("no number")
        return int(text)

    def open(self) -> CachedSecret[int]:
        return CachedSecret(self.fetch, self.read, clock=lambda: self.now)


@pytest.fixture
def source() -> Source:
    return Source()


class TestGet:
    def test_it_is_fetched_and_read_once(self, source: Source) -> None:
        secret = source.open()
        assert [secret.get() for _ in range(100)] == [1] * 100
        assert (source.fetched, source.read_texts) == (1, ["1"])

    def test_it_is_fetched_again_when_it_is_old(self, source: Source) -> None:
        secret = source.open()
        source.text = "2"
        source.now += LIFETIME - 1
        assert secret.get() == 1
        source.now += 1
        assert secret.get() == 2

    def test_an_old_text_that_did_not_change_is_not_read_again(self, source: Source) -> None:
        secret = source.open()
        value = secret.get()
        source.now += LIFETIME
        assert secret.get() is value
        assert (source.fetched, source.read_texts) == (2, ["1"])

    def test_cold_and_down_it_fails_closed(self, source: Source) -> None:
        source.text = None
        with pytest.raises(ServiceUnavailable):
            source.open()

    def test_cold_and_unusable_it_refuses(self, source: Source) -> None:
        source.text = "x"
        with pytest.raises(ConfigurationError, match="no number"):
            source.open()

    @pytest.mark.parametrize("text", [None, "x"], ids=["down", "unusable"])
    def test_warm_it_serves_the_last_good_value_and_asks_rarely(
        self, source: Source, text: str | None
    ) -> None:
        secret = source.open()
        source.text = text
        source.now += 30 * 86_400
        assert [secret.get() for _ in range(100)] == [1] * 100
        assert source.fetched == 2
        source.now += RETRY_AFTER
        assert secret.get() == 1
        assert source.fetched == 3
        source.text = "2"
        source.now += RETRY_AFTER
        assert secret.get() == 2

    @pytest.mark.parametrize("text", ["2", None], ids=["up", "down"])
    def test_no_request_is_charged_for_a_fetch(self, source: Source, text: str | None) -> None:
        def serve() -> Spent:
            spent = begin()
            secret = source.open()
            source.text = text
            source.now += LIFETIME
            secret.get()
            return spent

        spent = copy_context().run(serve)

        assert source.fetched == 2
        assert spent == Spent()


class TestRefresh:
    def test_it_is_rare(self, source: Source) -> None:
        secret = source.open()
        source.text = "2"
        assert [secret.refresh() for _ in range(100)] == [1] * 100
        source.now += RETRY_AFTER
        assert [secret.refresh() for _ in range(100)] == [2] * 100
        assert secret.get() == 2
        assert source.fetched == 2


class TestFixed:
    def test_it_never_changes(self) -> None:
        value = object()
        secret = CachedSecret.fixed(value)
        assert secret.get() is secret.refresh() is value
