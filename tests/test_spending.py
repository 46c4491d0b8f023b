"""What a request spends is counted for it alone, in worker threads too."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from auth_manager.budgets import Budget
from auth_manager.spending import Spent, begin, overhead, spending


class TestSpending:
    def test_it_is_counted_and_timed(self) -> None:
        spent = copy_context().run(lambda: _spend(begin()))

        assert (spent.hashes.count, spent.round_trips.count, spent.aws_calls.count) == (1, 2, 0)
        assert spent.round_trips.seconds > 0
        assert spent.aws_calls.seconds == 0

    def test_a_failure_is_an_expense_too(self) -> None:
        def fail() -> Spent:
            spent = begin()
            with pytest.raises(OSError, match="gone"), spending("aws_calls"):
                raise OSError("gone")
            return spent

        assert copy_context().run(fail).aws_calls.count == 1

    def test_a_worker_thread_spends_for_its_request(self) -> None:
        def serve() -> Spent:
            spent = begin()
            with ThreadPoolExecutor() as threads:
                threads.submit(copy_context().run, _spend, spent).result()
            return spent

        assert copy_context().run(serve).round_trips.count == 2

    def test_requests_do_not_mix(self) -> None:
        first = copy_context().run(lambda: _spend(begin()))
        copy_context().run(lambda: _spend(begin()))

        assert first.round_trips.count == 2

    def test_outside_a_request_nothing_is_counted(self) -> None:
        def outside() -> None:
            with spending("hashes"):
                pass

        copy_context().run(outside)


class TestOverhead:
    def test_it_is_not_counted_and_what_comes_after_is(self) -> None:
        def serve() -> Spent:
            spent = begin()
            with overhead():
                _spend(spent)
            return _spend(spent)

        spent = copy_context().run(serve)

        assert (spent.hashes.count, spent.round_trips.count) == (1, 2)

    def test_a_failure_ends_it(self) -> None:
        def serve() -> Spent:
            spent = begin()
            with pytest.raises(OSError, match="gone"), overhead():
                raise OSError("gone")
            return _spend(spent)

        assert copy_context().run(serve).hashes.count == 1


def _spend(spent: Spent) -> Spent:
    with spending("hashes"):
        pass
    for _ in range(2):
        with spending("round_trips"):
            pass
    return spent


class TestCovers:
    @pytest.mark.parametrize("kind", ["round_trips", "hashes", "aws_calls"])
    def test_one_more_is_over(self, kind: str) -> None:
        budget, spent = Budget(1, hashes=1, aws_calls=1), Spent()
        getattr(spent, kind).count = 1

        assert budget.covers(spent)

        getattr(spent, kind).count = 2

        assert not budget.covers(spent)
