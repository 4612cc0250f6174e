"""What sharing limits through Redis costs: latency at the same open-loop rate with and without, while the store answers
and while it is frozen, and Redis's CPU time per request."""

import contextlib
import pathlib
import signal
import statistics

from load import timed
from servers import Job, Server, all_running, check, running
from site_folder import Site, free_port

# Far above any limit of Cal.com's, and far below what saturates a machine that has to run all of it.
RATE = 1000


def measure(site: Site, calgate: pathlib.Path, generator: pathlib.Path, rounds: int,
            seconds: float) -> list[tuple[str, str]]:
    """Rows of name and value: medians of the rounds."""
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", site.folder]
    times, cpu = {"alone": [], "shared": [], "frozen": []}, []
    with running(site, "redis", port, command) as redis:
        for number in range(rounds):
            for name in (["alone", "shared"] if number % 2 else ["shared", "alone"]):
                job = Job(budget=True, store=port if name == "shared" else 0)
                with all_running(site, calgate, job, ["calgate"]) as servers:
                    server = servers["calgate"]
                    check(server, job)
                    timed(site, server, generator, RATE, 1)
                    before = redis.cpu_seconds()
                    requests, p50, p99 = timed(site, server, generator, RATE, seconds)
                    times[name].append((p50, p99))
                    if name == "shared":
                        cpu.append((redis.cpu_seconds() - before) / requests * 1e6)
                        with frozen(redis):
                            times["frozen"].append(timed(site, server, generator, RATE, seconds)[1:])
    return rows(times, cpu, seconds)


@contextlib.contextmanager
def frozen(server: Server):
    """It answers nothing, and its connections stay open, for as long as the block lasts."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def rows(times: dict[str, list[tuple[float, float]]], cpu: list[float], seconds: float) -> list[tuple[str, str]]:
    def of(name: str, column: int) -> float:
        return statistics.median(pair[column] for pair in times[name])

    def added(name: str, column: int) -> str:
        return f"{of(name, column) / 1e3:.2f} ms ({(of(name, column) - of('alone', column)) / 1e3:+.2f} ms)"

    return [
        (f"p50 at {RATE:,} requests/s, limits in the process", f"{of('alone', 0) / 1e3:.2f} ms"),
        ("p99, limits in the process", f"{of('alone', 1) / 1e3:.2f} ms"),
        ("p50, limits shared", added("shared", 0)),
        ("p99, limits shared", added("shared", 1)),
        (f"p50 of the {seconds:g} s from when the store is frozen", added("frozen", 0)),
        (f"p99 of the {seconds:g} s from when the store is frozen", added("frozen", 1)),
        ("Redis's CPU per request", f"{statistics.median(cpu):.0f} µs"),
    ]
