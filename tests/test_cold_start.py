import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator

import pytest

from auth_manager.cold_start import SPARED_IMPORTS, sparing_collections, sparing_imports


class TestSparingImports:
    @pytest.mark.parametrize("name", SPARED_IMPORTS)
    def test_they_fail_inside_and_work_afterwards(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)

        with sparing_imports(), pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)

        assert name not in sys.modules
        assert importlib.util.find_spec(name) is not None

    def test_what_is_loaded_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "email_validator", sys)

        with sparing_imports():
            assert importlib.import_module("email_validator") is sys

        assert sys.modules["email_validator"] is sys

    def test_they_work_after_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "email_validator", raising=False)

        with pytest.raises(LookupError), sparing_imports():
            raise LookupError

        assert "email_validator" not in sys.modules


class TestSparingCollections:
    @pytest.fixture(autouse=True)
    def _thaw(self) -> Iterator[None]:
        yield
        gc.unfreeze()

    def test_none_happens_inside(self) -> None:
        with sparing_collections():
            assert not gc.isenabled()

        assert gc.isenabled()

    def test_what_is_there_at_the_end_is_not_looked_at_again(self) -> None:
        with sparing_collections():
            kept: list[object] = [[]]

        assert gc.get_freeze_count() > 0
        assert not any(found is kept for found in gc.get_objects())
