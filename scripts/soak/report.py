"""The soak written down: `soak.json` with everything, `soak.csv` with the samples, and the table in docs/soak.md."""

import csv
import datetime
import json
import os
import platform
from pathlib import Path

from .samples import COLUMNS, percentile
from .verdict import MIB, Check

BEGIN, END = "<!-- result: written by scripts/soak.sh --docs -->", "<!-- end of the result -->"


def write(folder: Path, result: dict):
    (folder / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    with open(folder / "soak.csv", "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in result["samples"]:
            table.writerow({name: round(value, 3) if value is not None else "" for name, value in row.items()})


def machine() -> str:
    return f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}"


def summary(result: dict) -> str:
    """Markdown: what was run, what was found, and the verdict."""
    settings, rows = result["settings"], result["samples"]
    day = datetime.date.fromisoformat(result["date"])
    lines = [
        f"{day:%d %B %Y}, {result['version']}, {machine()}: {settings['minutes']:g} minutes, "
        f"{settings['vehicles']} vehicles with {settings['rate']:g} records a second each and one that measures acks, "
        f"{len(rows)} samples. {_happened(result['timeline'])}",
        "",
        "| | found | |",
        "| --- | --- | --- |",
    ]
    for check in (Check(**one) for one in result["checks"]):
        lines.append(f"| {check.name} | {check.found} | {'holds' if check.holds else '**does not hold**'} |")
    acks = result["acks"]
    most = {name: max(row[name] for row in rows) for name in ("rss", "backlog_kafka", "backlog_mqtt")}
    lines += [
        f"| ack latency | p50 {acks['p50']:.1f} ms, p99 {acks['p99']:.1f} ms, most {acks['most']:.1f} ms, "
        f"of {acks['count']:,} | |",
        f"| at most | RSS {most['rss'] / MIB:.1f} MiB, backlog {most['backlog_kafka']:,} for Kafka and "
        f"{most['backlog_mqtt']:,} for mosquitto | |",
    ]
    return "\n".join(lines)


def _happened(timeline: list[dict]) -> str:
    counts: dict[str, int] = {}
    for one in timeline:
        counts[one["kind"]] = counts.get(one["kind"], 0) + 1
    return "Happened: " + ", ".join(f"{kind} {count}×" for kind, count in counts.items()) + "."


def acks(latencies: list[float]) -> dict:
    """The probe's, over the whole soak."""
    parts = {"p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)}
    return {"count": len(latencies), **parts, "most": max(latencies)}


def into_docs(docs: Path, folder: Path, result: dict):
    """Copies the chart beside `soak.md`, and writes the result between its markers."""
    page = docs / "soak.md"
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no place for the result; it is between {BEGIN!r} and {END!r}")
    (docs / "soak.svg").write_text((folder / "soak.svg").read_text())
    chart = "![Memory, descriptors, disk, backlog and ack latency over the soak](soak.svg)"
    page.write_text(f"{head}{BEGIN}\n{summary(result)}\n\n{chart}\n{END}{tail}")
