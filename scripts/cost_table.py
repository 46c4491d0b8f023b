# ruff: noqa: INP001, RUF001 -- a script is no package; the arithmetic is written as people write it
"""Rewrite the computed tables of docs/costs.md, or of a copy, from its own prices and assumptions."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from auth_manager.observability import METRICS

ROOT = Path(__file__).resolve().parent.parent
MEMORY_SIZES = (512, 1024, 1769, 3008)
"""MB."""

MILLION = [
    ("HTTP API", "{http_api}"),
    ("Lambda, requests", "{lambda_requests}"),
    ("Logs, taken in (GB)", "{log_gb} × {log_ingestion}"),
    ("Logs, kept for 30 days (GB)", "{log_gb} × {log_storage}"),
]
REST = [
    ("Alarms (metrics they watch)", "{alarms} × {alarm}"),
    ("Composite alarm", "1 × {composite_alarm}"),
    ("Dashboard", "1 × {dashboard}"),
    ("Our metrics", "{metrics} × {custom_metric}"),
    ("API Gateway's detailed metrics of one route, at most", "6 × {custom_metric}"),
    ("Secrets", "3 × {secret}"),
    ("Reading two of them every 5 minutes", "{warm_instances} × 2 × 12 × {hours} ÷ 10,000 × {secret_calls}"),
    ("Relay every 2 minutes (GB-seconds)", "{relay_gb_s} × {lambda_x86_64}"),
    ("Schedules (M)", "60 × {hours} ÷ 1,000,000 × {schedules}"),
    ("Queue, five times asked every 20 s (M)", "5 × 180 × {hours} ÷ 1,000,000 × {queue_requests}"),
]
DATA = [
    ("Aurora Serverless v2 at its least, 0.5 ACU", "0.5 × {hours} × {aurora_acu}"),
    ("Each further ACU, all month", "{hours} × {aurora_acu}"),
    ("Aurora, storage (GB)", "{database_size} × {aurora_storage}"),
    ("RDS db.t4g.medium with a standby, 20 GB", "2 × ({hours} × {rds_t4g_medium} + 20 × {rds_storage})"),
    ("RDS db.t4g.micro alone, 20 GB", "{hours} × {rds_t4g_micro} + 20 × {rds_storage}"),
    ("Neon, 0.25 CU that never sleeps, 1 GB", "0.25 × {hours} × {neon_cu} + {neon_storage}"),
    ("RDS Proxy before Aurora Serverless (8 ACU)", "8 × {hours} × {proxy_acu}"),
    ("RDS Proxy before an instance of 2 vCPU", "2 × {hours} × {proxy_vcpu}"),
    ("Endpoints of Secrets Manager and SQS", "2 × {zones} × {hours} × {endpoint}"),
    ("NAT gateway in every zone", "{zones} × {hours} × {nat_gateway}"),
    ("KMS key, master secret", "{kms_key} + {secret}"),
]
WARM = [
    ("One provisioned instance, x86_64 (GB-seconds)", "{month_gb_s} × {warm_x86_64}"),
    ("SnapStart, each version that is kept (GB-seconds)", "{month_gb_s} × {snapstart_cache}"),
    ("SnapStart, 10,000 starts (GB)", "10,000 × 1769 ÷ 1024 × {snapstart_restore}"),
]
EXAMPLE = [
    ("API, requests, logs (M)", "{requests} × {million}"),
    ("Lambda time (GB-seconds)", "{work_gb_s} × {lambda_arm64}"),
    ("Cold starts (GB-seconds)", "{cold_gb_s} × {lambda_arm64}"),
    ("The app stack at rest", "{rest}"),
    ("Aurora Serverless v2", "{average_acu} × {hours} × {aurora_acu} + {database_size} × {aurora_storage}"),
    ("Endpoints, KMS key, master secret", "2 × {zones} × {hours} × {endpoint} + {kms_key} + {secret}"),
]
COGNITO = [
    ("Cognito Lite for as many", "({users} - 10,000) × {cognito_lite}"),
    ("Cognito Essentials for as many", "({users} - 10,000) × {cognito_essentials}"),
]

Rows = list[tuple[str, str]]
"""What is paid; the arithmetic, with the names of values in braces."""


def rewrite(text: str) -> str:
    """Return the document with its computed tables anew."""
    numbers = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    v = {name: float(number) for name, number in numbers}
    v |= count(v)
    v |= {"million": total(MILLION, v), "rest": total(REST, v)}
    tables = {
        "memory": render_memory(v),
        "million": render(MILLION, v) + render_total(MILLION, v),
        "rest": render(REST, v) + render_total(REST, v),
        "data": render(DATA, v),
        "warm": render(WARM, v),
        "example": render(EXAMPLE, v) + render_total(EXAMPLE, v),
        "cognito": render(COGNITO, v),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- computed: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, rf"\g<1>{table}\g<2>", text, count=1, flags=re.DOTALL)
    return text


def count(v: Mapping[str, float]) -> dict[str, float]:
    """Return what the arithmetic needs besides prices and assumptions, rounded as it is shown."""
    passwords, others = v["users"] * v["passwords_each"], v["users"] * v["others_each"]
    work = gb_seconds(duration(v, "password", 1769), 1769, passwords)
    work += gb_seconds(duration(v, "other", 1769), 1769, others)
    cold = gb_seconds(v["cold_time"], 1769, (passwords + others) * v["cold_share"] / 100)
    return {
        "alarms": count_alarm_metrics(),
        "metrics": len(METRICS),
        "log_gb": round(1_000_000 * v["log_size"] / 1024**2, 2),
        "relay_gb_s": round(gb_seconds(v["relay_time"], 1024, 30 * v["hours"])),
        "month_gb_s": round(1769 / 1024 * v["hours"] * 3600),
        "requests": (passwords + others) / 1_000_000,
        "work_gb_s": round(work),
        "cold_gb_s": round(cold),
    }


def count_alarm_metrics() -> int:
    """Count the metrics that alarms of the app stack watch: one each, and every operand of metric math."""
    template = (ROOT / "template.yaml").read_text(encoding="utf-8")
    alarms = len(re.findall(r"Type: AWS::CloudWatch::Alarm$", template, re.MULTILINE))
    of_math = len(re.findall(r"^      Metrics:$", template, re.MULTILINE))
    return alarms - of_math + template.count("MetricStat:")


def duration(v: Mapping[str, float], kind: str, memory: int) -> float:
    """Return the ms that Lambda bills for one request of a kind: `password` or `other`."""
    share = min(1, memory / v["cpu_memory"])
    return v[f"{kind}_cpu"] / share + v[f"{kind}_trips"] * v["trip"]


def gb_seconds(milliseconds: float, memory: int, requests: float) -> float:
    """Return what Lambda bills for these requests."""
    return requests * milliseconds / 1000 * memory / 1024


def write_out(arithmetic: str, v: Mapping[str, float]) -> str:
    """Put the numbers in place of the names."""
    shown = {name: f"{number:,.10f}".rstrip("0").rstrip(".") for name, number in v.items()}
    return arithmetic.format_map(shown)


def work_out(written: str) -> float:
    """Return what written arithmetic comes to."""
    plain = written.replace(",", "").replace("×", "*").replace("÷", "/")
    if not re.fullmatch(r"[\d.*/+() -]+", plain):
        raise ValueError(f"no arithmetic: {written}")
    return float(eval(plain))  # noqa: S307 -- digits and operators alone


def total(rows: Rows, v: Mapping[str, float]) -> float:
    """Return USD, to the cent."""
    return round(sum(work_out(write_out(arithmetic, v)) for _, arithmetic in rows), 2)


def render(rows: Rows, v: Mapping[str, float]) -> str:
    """Render what is paid, the arithmetic, and USD."""
    lines = ["| What | Arithmetic | USD |", "|---|---|---|"]
    for what, arithmetic in rows:
        written = write_out(arithmetic, v)
        lines.append(f"| {what} | {written} | {work_out(written):,.2f} |")
    return "\n".join(lines) + "\n"


def render_total(rows: Rows, v: Mapping[str, float]) -> str:
    """Render the last row of a table."""
    return f"| **Together** | | **{total(rows, v):,.2f}** |\n"


def render_memory(v: Mapping[str, float]) -> str:
    """Render ms, GB-seconds and USD of a million requests at each memory size."""
    lines = [
        "| MB | Login: ms | GB-s | x86_64 | arm64 | Other: ms | GB-s | x86_64 | arm64 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for memory in MEMORY_SIZES:
        cells = [f"{memory}"]
        for kind in ("password", "other"):
            milliseconds = duration(v, kind, memory)
            used = gb_seconds(milliseconds, memory, 1_000_000)
            cells += [f"{milliseconds:.0f}", f"{used:,.0f}"]
            cells += [f"{used * v[f'lambda_{machine}']:.2f}" for machine in ("x86_64", "arm64")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the file that is named, docs/costs.md without one."""
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "costs.md"
    target.write_text(rewrite(target.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
