"""docs/deploying.md and docs/costs.md say what the templates, the deploy script and the prices say."""

import re
import runpy
import ssl
import subprocess
from pathlib import Path
from typing import Any

import botocore
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows_of(name: str, section: str) -> list[list[str]]:
    """The cells of each table row in a section of a document, without header rows."""
    text = re.split(r"^## ", read(name).split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (.*)\|$\n(?!\|-)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def plain(cell: str) -> str:
    return cell.strip("`")


class TestDeploying:
    def test_each_parameter_of_the_template_is_there_with_its_default_and_no_other(self) -> None:
        parameters = read("template.yaml").split("\nParameters:\n")[1].split("\nRules:\n")[0]
        declared = {
            name: default_of(body)
            for name, body in re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", parameters, re.MULTILINE)
        }
        rows = rows_of("docs/deploying.md", "Parameters")

        assert declared
        assert {plain(row[0]): plain(row[1]) for row in rows} == declared

    def test_each_flag_of_the_script_is_there_and_no_other(self) -> None:
        help_text = subprocess.run(
            [ROOT / "scripts" / "deploy-lambda.sh", "--help"], capture_output=True, text=True, check=True
        ).stdout
        options = "\n".join(re.findall(r"^  (-.*?)(?:  |$)", help_text, re.MULTILINE))
        section = " ".join(
            row[0] for row in rows_of("docs/deploying.md", "Flags of scripts/deploy-lambda.sh")
        )

        assert flags(options)
        assert flags(section) == flags(options)

    def test_each_flag_of_a_command_exists(self) -> None:
        script = read("scripts/deploy-lambda.sh")
        lines = [line for path in DOCUMENTS for line in path.read_text(encoding="utf-8").splitlines()]
        used = {flag for line in lines if line.startswith("scripts/deploy-lambda.sh") for flag in flags(line)}

        assert used
        assert [flag for flag in sorted(used) if not re.search(rf"{flag}(?:\)| \|)", script)] == []

    def test_each_output_that_it_names_exists(self) -> None:
        templates = [read("template.yaml"), *(path.read_text() for path in (ROOT / "infra").glob("*.yaml"))]
        outputs = {
            name
            for template in templates
            for name in re.findall(r"^  (\w+):$", template.split("\nOutputs:\n")[1], re.MULTILINE)
        }
        text = read("docs/deploying.md") + read("README.fr.md")
        named = {
            name
            for sentence in re.findall(r"(?:[Oo]utputs?|sorties?)\s((?:`\w+`(?:,\s|\sand\s)?)+)", text)
            for name in re.findall(r"\w+", sentence)
            if name != "and"
        }

        assert named
        assert named <= outputs

    def test_the_authorities_that_it_names_are_in_the_image(self) -> None:
        authorities = Path(botocore.__file__).parent / "cacert.pem"
        subjects = str(ssl.create_default_context(cafile=str(authorities)).get_ca_certs())

        assert f"`/var/task/{authorities.parent.name}/{authorities.name}`" in read("docs/deploying.md")
        assert re.search(r"^botocore==", read("requirements.txt"), re.MULTILINE)
        for authority in ("Amazon Root CA 1", "ISRG Root X1"):
            assert authority in subjects


def default_of(body: str) -> str:
    """The default of a parameter, as the table says it."""
    found = re.search(r'^    Default: "?(.*?)"?$', body, re.MULTILINE)
    return "required" if found is None else found[1] or "none"


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*\b", text))


class TestCosts:
    def test_the_tables_are_those_of_the_prices_and_the_template(self) -> None:
        """If not: .venv/bin/python scripts/cost_table.py."""
        written = read("docs/costs.md")

        assert cost_script()["rewrite"](written) == written

    def test_another_price_is_another_bill(self) -> None:
        written = read("docs/costs.md")
        dearer = written.replace("| `http_api` | 1.00 |", "| `http_api` | 3.00 |")

        bills = [totals(cost_script()["rewrite"](text)) for text in (written, dearer)]

        assert bills[1][0] == pytest.approx(bills[0][0] + 2)
        assert bills[1][-1] == pytest.approx(bills[0][-1] + 8.4 * 2)

    def test_a_login_at_one_cpu_costs_what_a_calculator_says(self) -> None:
        """1 M * (27 ms + 2 trips of 1 ms) / 1000 * 1769 / 1024 * 0.0000133334."""
        [row] = [
            row
            for row in rows_of("docs/costs.md", "Computed: Lambda time of 1 M requests")
            if row[0] == "1769"
        ]

        assert row[1:5] == ["29", "50,099", "0.83", "0.67"]

    def test_each_price_has_a_source(self) -> None:
        assert [
            row[0]
            for row in rows_of("docs/costs.md", "Prices")
            if not re.search(r"https://|the same", row[3])
        ] == []

    def test_only_arithmetic_is_worked_out(self) -> None:
        with pytest.raises(ValueError, match="no arithmetic"):
            cost_script()["work_out"]("__import__('os')")


def cost_script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "cost_table.py"))


def totals(text: str) -> list[float]:
    """What each table comes to: a million requests, the stack at rest, the example."""
    return [
        float(usd) for usd in re.findall(r"^\| \*\*Together\*\* \| \| \*\*([\d.]+)\*\*", text, re.MULTILINE)
    ]
