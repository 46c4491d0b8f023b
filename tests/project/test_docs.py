"""The documentation is complete and true where a machine can tell."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from auth_manager.entrypoints.local import FIRST_CALLS
from auth_manager.errors import AuthError
from auth_manager.factors.changes import Change
from auth_manager.observability import METRICS
from auth_manager.settings import Settings
from auth_manager.sign_ins import EVENTS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "auth_manager").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS = Settings.model_fields
READMES = ("README.md", "README.fr.md")

REGISTER = (
    "curl -X POST $API/auth/register -H 'Content-Type: application/json'"
    ' -d \'{"email":"test@example.com","username":"testuser","password":"SecurePass123!"}\''
)
LOG_IN = (
    "curl -X POST $API/auth/login    -H 'Content-Type: application/json'"
    ' -d \'{"email":"test@example.com","password":"SecurePass123!"}\''
)
CURL_LINES = [REGISTER, LOG_IN]
"""The first calls of the API's contract, which work as they stand."""

FORBIDDEN = {
    "a machine's path": r"(?<![\w.])/(?:home|root|tmp|work|Users)/",
    "an unfinished place": r"\b(?:TODO|FIXME|TBD|XXX|TESTREF)\b",
    "a placeholder": r"(?i)lorem ipsum|coming soon",
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows_of(name: str, section: str | None = None) -> Iterator[list[str]]:
    """The cells of each table row of a document, or of one of its sections; without header rows."""
    text = read(name)
    if section is not None:
        text = re.split(r"^## ", text.split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not following.startswith("|-"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def first_code(cell: str) -> str:
    found = re.match(r"`([^`]*)`", cell)
    return found[1] if found else ""


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def string_calls(pattern: str) -> set[str]:
    """The text that each call matching a pattern in the sources has as its first group."""
    found = {match for path in SOURCES for match in re.findall(pattern, path.read_text(encoding="utf-8"))}
    assert found, f"nothing in the sources matches {pattern}"
    return found


def subclasses(kind: type[AuthError]) -> set[type[AuthError]]:
    return set(kind.__subclasses__()).union(*(subclasses(child) for child in kind.__subclasses__()))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.fixture(scope="module")
def documented() -> dict[str, list[str]]:
    """The row of each setting, by its name as a field."""
    rows = [row for row in rows_of("docs/settings.md") if row[0].startswith("`AUTH_")]
    assert len({row[0] for row in rows}) == len(rows), "a setting is there twice"
    return {first_code(row[0]).removeprefix("AUTH_").lower(): row for row in rows}


class TestSettings:
    def test_each_is_documented_and_no_other(self, documented: dict[str, list[str]]) -> None:
        assert set(documented) == set(SETTINGS)

    def test_the_defaults_are_right(self, documented: dict[str, list[str]]) -> None:
        written = {name: first_code(row[2]) for name, row in documented.items()}

        assert written == {name: render_default(field) for name, field in SETTINGS.items()}

    def test_the_bounds_are_right(self, documented: dict[str, list[str]]) -> None:
        """As in `integer, 60 to 86400` and `number over 0, to 10`."""
        kinds = {name: re.sub(r"`[^`]*`", "", row[1]) for name, row in documented.items()}
        written = {name: [float(n) for n in re.findall(r"\d+", kind)] for name, kind in kinds.items()}

        assert written == {name: bounds(field) for name, field in SETTINGS.items()}

    def test_the_choices_are_right(self, documented: dict[str, list[str]]) -> None:
        written = {name: codes(row[1]) for name, row in documented.items()}

        assert written == {name: choices(field) for name, field in SETTINGS.items()}


def render_default(field: FieldInfo) -> str:
    """What the table says: JSON's booleans, `none` for what is empty."""
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in ("", (), {}) else str(default)


def bounds(field: FieldInfo) -> list[float]:
    """The numbers that limit a setting, from below and from above."""
    return [
        float(getattr(rule, kind))
        for kind in ("gt", "ge", "lt", "le")
        for rule in field.metadata
        if hasattr(rule, kind)
    ]


def choices(field: FieldInfo) -> list[str]:
    return [choice for choice in get_args(field.annotation) if isinstance(choice, str)]


class TestErrors:
    def test_each_is_documented_with_status_and_title_and_no_other(self) -> None:
        documented = {(row[0], first_code(row[1]), row[2]) for row in rows_of("docs/errors.md", "Codes")}

        assert documented == {(f"{kind.status}", kind.code, kind.title()) for kind in subclasses(AuthError)}

    def test_each_code_of_a_field_is_documented_and_no_other(self) -> None:
        raised = string_calls(r'FieldError\(\s*[^,()]+,\s*"(\w+)"')
        translated = string_calls(r'"\w+": \("(\w+)", "[^"]+"\),')
        documented = {first_code(row[0]) for row in rows_of("docs/errors.md", "Codes inside `errors`")}

        assert documented == raised | translated


class TestApi:
    def test_each_route_has_a_section_and_no_other(self) -> None:
        paths = json.loads(read("docs/openapi.json"))["paths"]
        routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
        sections = set(re.findall(r"^### (.+)$", read("docs/api.md"), re.MULTILINE))

        assert sections == routes | {"GET /openapi.json", "GET /docs"}

    def test_each_section_names_codes_that_exist(self) -> None:
        known = {kind.code for kind in subclasses(AuthError)}
        sections = re.split(r"^### ", read("docs/api.md"), flags=re.MULTILINE)[1:]
        named = {
            code
            for section in sections
            for sentence in re.findall(r"Errors: (.+?\.)\n\n", section, re.DOTALL)
            for code in re.findall(r"`([a-z_]+)`", sentence)
        }

        assert named
        assert named <= known


class TestOperations:
    def test_each_metric_is_documented_and_no_other(self) -> None:
        assert {first_code(row[0]) for row in rows_of("docs/operations.md", "Metrics")} == set(METRICS)

    def test_each_log_event_is_documented_and_no_other(self) -> None:
        logged = string_calls(r'log_(?:event|failure)\(\s*"(\w+)"')

        assert {first_code(row[0]) for row in rows_of("docs/operations.md", "Logs")} == logged

    def test_each_security_event_is_documented_and_no_other(self) -> None:
        appended = string_calls(r'audit\.append\(\s*connection,\s*f?"([\w{}]+)"')
        appended -= {"logged_out_{scope}", "{purpose}_requested"}
        appended |= {change.value for change in Change} | set(EVENTS.values())
        scopes = {"logged_out_this", "logged_out_others", "logged_out_all"}
        scopes |= {"verify_email_requested", "reset_password_requested", "email_login_requested"}
        documented = {
            code for row in rows_of("docs/operations.md", "Security events") for code in codes(row[0])
        }

        assert documented == appended | scopes

    def test_each_route_has_its_round_trips(self) -> None:
        paths = json.loads(read("docs/openapi.json"))["paths"]
        cells = " ".join(row[0] for row in rows_of("docs/operations.md", "Database round trips"))

        assert [path for path in paths if not re.search(rf"{re.escape(path)}`", cells)] == []


class TestReadme:
    @pytest.mark.parametrize("name", READMES)
    def test_the_first_calls_are_those_of_the_contract(self, name: str) -> None:
        url = "http://127.0.0.1:8000"
        lines = [line for line in read(name).splitlines() if line.startswith("curl ")]

        assert lines == [line.replace("$API", url) for line in CURL_LINES]

    def test_the_reference_has_them_too(self) -> None:
        reference = read("docs/api.md").splitlines()

        assert [line for line in CURL_LINES if line not in reference] == []

    def test_make_local_prints_them_too(self) -> None:
        url = "http://127.0.0.1:8000"
        printed = [line.strip() for line in FIRST_CALLS.format(url=url, state=".local").splitlines()]

        assert [line for line in CURL_LINES if line.replace("$API", url) not in printed] == []

    def test_each_make_target_exists(self) -> None:
        targets = {name for name, _ in make_targets()}
        named = {target for path in DOCUMENTS for target in re.findall(r"`make ([\w-]+)", path.read_text())}

        assert named
        assert named <= targets

    def test_the_french_one_has_the_same_commands(self) -> None:
        blocks = [re.findall(r"^```sh\n(.*?)^```", read(name), re.MULTILINE | re.DOTALL) for name in READMES]

        assert len(blocks[0]) > 2
        assert blocks[0] == blocks[1]

    def test_the_french_one_has_the_same_figure_of_costs(self) -> None:
        together = re.findall(
            r"^\| \*\*Together\*\* \| \| \*\*([\d.]+)\*\* \|$", read("docs/costs.md"), re.MULTILINE
        )
        about = round(float(together[-1]), -1)

        assert [f"{about:.0f} USD" in read(name) for name in READMES] == [True, True]

    def test_both_lead_to_the_other(self) -> None:
        assert all(f"]({READMES[1 - i]})" in read(name) for i, name in enumerate(READMES))


def make_targets() -> list[tuple[str, str]]:
    return re.findall(r"^([a-z][a-z-]*):([^=\n]*)$", read("Makefile"), re.MULTILINE)


class TestMakefile:
    def test_each_target_says_what_it_does(self) -> None:
        targets = make_targets()

        assert targets
        assert [name for name, rest in targets if not re.search(r" ## \w", rest)] == []

    def test_none_is_taken_for_a_file(self) -> None:
        phony = re.search(r"^\.PHONY:((?:[^\n]*\\\n)*[^\n]*)$", read("Makefile"), re.MULTILINE)

        assert phony
        assert {name for name, _ in make_targets()} == set(phony[1].replace("\\", "").split())


class TestLinks:
    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
    def test_each_leads_somewhere(self, document: Path) -> None:
        text = re.sub(
            r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        broken = []
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://", link):
                continue
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if not target.exists():
                broken.append(link)
            elif anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                if anchor not in map(slug, headings):
                    broken.append(link)

        assert broken == []

    def test_each_document_that_the_code_names_exists(self) -> None:
        files = [*SOURCES, *(ROOT / name for name in ("Dockerfile", "Makefile", "template.yaml"))]
        named = {
            name
            for path in files
            for name in re.findall(r"\bdocs/[\w./-]+\.\w+", path.read_text(encoding="utf-8"))
        }

        assert named
        assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


class TestDecisions:
    def test_they_are_numbered_without_a_gap(self) -> None:
        numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]

        assert numbers == list(range(1, len(numbers) + 1))

    @pytest.mark.parametrize(
        "document", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: str(path.stem)
    )
    def test_each_has_a_status_and_says_what_follows(self, document: Path) -> None:
        text = document.read_text(encoding="utf-8")

        assert text.startswith(f"# {int(document.name[:4])}. ")
        for part in ("Status", "Context", "Decision", "Consequences"):
            assert re.search(rf"^(?:#+ |\*\*){part}", text, re.MULTILINE), part


class TestSecurity:
    def test_each_test_that_it_names_exists(self) -> None:
        named = re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)*)`", read("docs/security.md"))

        assert named
        assert [f"{path}{names}" for path, names in named if not has_test(path, names)] == []

    def test_each_promise_names_a_test(self) -> None:
        tables = (
            "Passwords and login",
            "Recovery and mail",
            "Second factors and passkeys",
            "Sessions and authorization",
            "Tokens and keys",
            "The API",
            "Under faults",
        )
        without = [
            row[0]
            for table in tables
            for row in rows_of("docs/security.md", table)
            if "`tests/" not in row[-1]
        ]

        assert without == []


def has_test(path: str, names: str) -> bool:
    """Whether a file has a class, or the function of a class, as in `::TestLogIn::test_x`."""
    file = ROOT / path
    if not file.exists():
        return False
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    for name in filter(None, names.split("::")):
        found = [
            node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


class TestWording:
    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
    def test_nothing_is_left_over(self, document: Path) -> None:
        text = document.read_text(encoding="utf-8")
        found = {what: re.findall(pattern, text) for what, pattern in FORBIDDEN.items()}

        assert {what: hits for what, hits in found.items() if hits} == {}

    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
    def test_its_lines_fit_a_screen(self, document: Path) -> None:
        """Tables and commands may be longer."""
        text = re.sub(
            r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )

        assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
