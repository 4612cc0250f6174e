"""Writes tables in Markdown, for the terminal and for RESULTS.md."""

import datetime
import os
import platform
import statistics
import subprocess

import proc
from load import Cost, Times

HEADER = """# Results of the last full run

Made by `make bench` on {date}: {cpu}, {cores} cores, Linux {kernel}; {peers}.
Load, upstream and proxy share the machine, so requests/s are lower than on separate machines. Compare the CPU per request and
the ratios. A ratio is calgate's CPU per request divided by that of the other proxy in the same round. The tables show the median
of the rounds, with their range. `README.md` in this folder describes the measurement.
"""


def header() -> str:
    def version(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).splitlines()[0].strip()

    peers = ", ".join([version("nginx", "-v"), version("haproxy", "-v"), version("wrk", "-v").split("[")[0].strip()])
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return HEADER.format(date=date, cpu=proc.cpu_model(), cores=os.cpu_count(), kernel=platform.release(), peers=peers)


def costs(title: str, rounds: dict[str, list[Cost]]) -> str:
    """Returns a row for each server: medians, and the ratio of calgate to the server."""
    lines = [f"## {title}", "", "| server | requests/s | CPU µs/request | RSS MB | calgate's CPU, relative |",
             "|---|---:|---:|---:|---:|"]
    for name, costs_of in rounds.items():
        median = {f: statistics.median(getattr(c, f) for c in costs_of) for f in ("per_second", "cpu_us", "rss_bytes")}
        ratio = "" if name == "calgate" else relative(
            [mine.cpu_us for mine in rounds["calgate"]], [cost.cpu_us for cost in costs_of])
        lines.append(f"| {name} | {median['per_second']:,.0f} | {median['cpu_us']:.1f} | "
                     f"{median['rss_bytes'] / 1e6:.1f} | {ratio} |")
    return "\n".join(lines) + "\n"


def latencies(rate: float, how: str, rounds: dict[str, list[Times]]) -> str:
    lines = [f"## Latency at {rate:,.0f} requests/s, half of what the slowest reached (open loop; {how})", "",
             "| server | p50 µs | p99 µs | calgate's p99, relative |", "|---|---:|---:|---:|"]
    for name, times in rounds.items():
        median = {f: statistics.median(getattr(t, f) for t in times) for f in ("p50", "p99")}
        ratio = "" if name == "calgate" else relative(
            [mine.p99 for mine in rounds["calgate"]], [each.p99 for each in times])
        lines.append(f"| {name} | {' | '.join(f'{value:.0f}' for value in median.values())} | {ratio} |")
    return "\n".join(lines) + "\n"


def relative(mine: list[float], theirs: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(mine, theirs))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def growth(title: str, one: dict[str, list[Cost]], other: dict[str, list[Cost]], field: str) -> str:
    """Returns how each server changes from one job to another."""
    lines = [f"## {title}", "", "| server | ratio |", "|---|---:|"]
    for name in other:
        lines.append(f"| {name} | {relative([getattr(c, field) for c in other[name]], [getattr(c, field) for c in one[name]])} |")
    return "\n".join(lines) + "\n"


def facts(title: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"## {title}", "", "| what | value |", "|---|---:|", *(f"| {a} | {b} |" for a, b in rows)]) + "\n"
