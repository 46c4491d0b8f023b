"""Endpoints at the limit, and who may make them without a token."""

import threading
from datetime import UTC, datetime

import pytest
from tests.webhooks.conftest import Hooks

from auth_manager.audit import Origin
from auth_manager.errors import Forbidden, TooManyWebhooks
from auth_manager.webhooks import MOST_ENDPOINTS, service

URL = "https://hooks.example.com/"


class TestCreate:
    def test_of_many_at_once_no_more_than_the_limit(self, hooks: Hooks) -> None:
        for _ in range(MOST_ENDPOINTS - 1):
            hooks.create(URL)
        begin, refused = threading.Barrier(4), list[TooManyWebhooks]()

        def work() -> None:
            begin.wait()
            try:
                hooks.create(URL)
            except TooManyWebhooks as error:
                refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 3
        assert len(hooks.query("SELECT 1 FROM webhook_endpoints")) == MOST_ENDPOINTS

    def test_a_request_without_a_token_is_no_operator(self, hooks: Hooks) -> None:
        origin = Origin("203.0.113.7", "curl", "r", datetime.now(UTC))
        with pytest.raises(Forbidden):
            service.create(hooks.resources, origin, None, url=URL)
        assert hooks.query("SELECT 1 FROM webhook_endpoints") == []
