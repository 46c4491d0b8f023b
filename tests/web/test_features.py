"""A lazy application answers like one that has everything, and loads what a request may need."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from starlette.routing import Route

import auth_manager
from auth_manager.app import AT_START, FEATURES, PAGES, create_app
from auth_manager.resources import Resources
from auth_manager.web.calls import run_inline
from auth_manager.web.features import Feature

SOURCE = Path(auth_manager.__file__).parent
ALL = (*FEATURES, PAGES)


def routes_of(feature: Feature) -> list[Route]:
    router = APIRouter()
    feature.add_to(router)
    return [route for route in router.routes if isinstance(route, Route)]


PATHS = sorted({route.path for feature in ALL for route in routes_of(feature)})


@pytest.fixture
def resources_without_docs(make_resources: Callable[..., Resources]) -> Resources:
    return make_resources(docs_enabled=False)


def client_of(resources: Resources, *, lazy: bool) -> TestClient:
    app = create_app(resources, runner=run_inline, lazy=lazy)
    return TestClient(app, base_url="https://auth.example.com", client=("203.0.113.7", 5000))


def paths_of(client: TestClient) -> set[str]:
    return {route.path for route in client.app.routes}  # type: ignore[attr-defined]  # an application has them


class TestFeatures:
    def test_every_router_is_one(self) -> None:
        files = [
            *SOURCE.glob("*/routes.py"),
            *(file for file in SOURCE.glob("web/*.py") if "\nrouter = " in file.read_text(encoding="utf-8")),
        ]
        names = {".".join(("auth_manager", *f.relative_to(SOURCE).with_suffix("").parts)) for f in files}

        assert {feature.module for feature in ALL} == names

    @pytest.mark.parametrize("feature", ALL, ids=lambda feature: feature.module)
    def test_all_of_its_paths_begin_as_it_says(self, feature: Feature) -> None:
        paths = [route.path for route in routes_of(feature)]

        assert paths
        assert [path for path in paths if not path.startswith(feature.prefixes)] == []
        assert all(any(path.startswith(prefix) for path in paths) for prefix in feature.prefixes)

    def test_no_two_answer_the_same(self) -> None:
        """Or the order of loading would decide who answers."""
        operations = [
            (method, route.path) for f in ALL for route in routes_of(f) for method in route.methods or ()
        ]

        assert len(set(operations)) == len(operations)


class TestLazyApplication:
    def test_it_starts_with_few_routes(self, resources_without_docs: Resources) -> None:
        client = client_of(resources_without_docs, lazy=True)

        assert paths_of(client) == {route.path for feature in AT_START for route in routes_of(feature)}

    def test_a_request_brings_its_own_feature_and_no_other(self, resources_without_docs: Resources) -> None:
        client = client_of(resources_without_docs, lazy=True)
        before = paths_of(client)

        assert client.post("/auth/password/forgot", json={}).status_code == 422
        assert client.post("/auth/password/forgot", json={}).status_code == 422

        recovery = import_module("auth_manager.recovery.routes").router
        assert paths_of(client) - before == {route.path for route in recovery.routes}
        assert len(client.app.routes) == len(before) + len(recovery.routes)  # type: ignore[attr-defined]

    def test_an_unknown_path_brings_none(self, resources_without_docs: Resources) -> None:
        client = client_of(resources_without_docs, lazy=True)
        before = paths_of(client)

        assert client.get("/nothing").status_code == 404
        assert paths_of(client) == before

    def test_methods_are_refused_alike(self, resources_without_docs: Resources) -> None:
        """405 and Allow, the only answers that depend on routes other than one's own."""
        complete = client_of(resources_without_docs, lazy=False)

        for path in (re.sub(r"\{\w+:uuid\}", str(UUID(int=7)), path) for path in PATHS):
            expected = complete.options(path)
            found = client_of(resources_without_docs, lazy=True).options(path)
            assert (found.status_code, found.headers["allow"]) == (405, expected.headers["allow"]), path

    def test_with_docs_it_has_everything(self, make_resources: Callable[..., Resources]) -> None:
        client = client_of(make_resources(docs_enabled=True), lazy=True)

        assert set(PATHS) <= paths_of(client)

    def test_pages_can_be_off(self, make_resources: Callable[..., Resources]) -> None:
        client = client_of(make_resources(docs_enabled=False, pages_enabled=False), lazy=True)

        assert client.get("/account/sign-in").status_code == 404
