"""Measures the cost of limits that are shared through Redis: latency in an open loop with and without sharing, while the
store answers and after it fails, and the CPU time of Redis per request."""

import contextlib
import pathlib
import signal
import statistics
import subprocess
from collections.abc import Iterator

from load import Times, paced
from servers import Job, Server, all_running, check, running
from site_folder import Site, free_port

# Far above any limit of Cal.com's, and far below what saturates a machine that has to run all of it.
RATE = 1000


def measure(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path, rounds: int,
            seconds: float) -> list[tuple[str, str]]:
    """Returns rows of name and value, with medians of the rounds."""
    times: dict[str, list[Times]] = {name: [] for name in ["alone", "shared", *FAULTS]}
    cpu = []
    for number in range(rounds):
        for name in list(times)[::1 if number % 2 else -1]:
            with store(site) as redis:
                job = Job(budget=True, store=0 if name == "alone" else redis.port)
                with all_running(site, programs, job, ["calgate"]) as servers:
                    check(servers["calgate"], job)
                    paced(site, servers["calgate"], generator, RATE, 1)
                    before = redis.cpu_seconds()
                    with FAULTS.get(name, contextlib.nullcontext)(redis):
                        measured = paced(site, servers["calgate"], generator, RATE, seconds)
                    times[name].append(measured)
                    if name == "shared":
                        cpu.append((redis.cpu_seconds() - before) / measured.requests * 1e6)
    return rows(times, cpu, seconds)


def store(site: Site) -> contextlib.AbstractContextManager[Server]:
    """Runs an empty Redis within the block."""
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", site.folder]
    return running(site, "redis", port, [*command, "--enable-debug-command", "local"])


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stops Redis within the block. Its connections stay open."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def slow(server: Server) -> Iterator[None]:
    """Lets Redis answer only every 200 ms within the block."""
    command = ["redis-cli", "-e", "-p", str(server.port)]
    subprocess.run([*command, "DEBUG", "SLEEP", "0"], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*command, "-r", "-1", "DEBUG", "SLEEP", "0.2"], stdout=subprocess.DEVNULL) as sleeper:
        try:
            yield
        finally:
            sleeper.kill()


@contextlib.contextmanager
def killed(server: Server) -> Iterator[None]:
    """Kills Redis, so that no program listens on its port."""
    server.process.kill()
    server.process.wait()
    yield


# What fails, by its name in the results.
FAULTS = {"frozen": frozen, "slow, 200 ms": slow, "killed": killed}


def rows(times: dict[str, list[Times]], cpu: list[float], seconds: float) -> list[tuple[str, str]]:
    def of(name: str, percentile: str) -> float:
        return statistics.median(getattr(each, percentile) for each in times[name])

    def added(name: str, percentile: str) -> str:
        more = of(name, percentile) - of("alone", percentile)
        return f"{of(name, percentile) / 1e3:.2f} ms ({more / 1e3:+.2f} ms)"

    failing = [
        (f"{percentile} of the {seconds:g} s from when the store is {name}", added(name, percentile))
        for name in FAULTS for percentile in ["p50", "p99"]
    ]
    return [
        (f"p50 at {RATE:,} requests/s, limits in the process", f"{of('alone', 'p50') / 1e3:.2f} ms"),
        ("p99, limits in the process", f"{of('alone', 'p99') / 1e3:.2f} ms"),
        ("p50, limits shared", added("shared", "p50")),
        ("p99, limits shared", added("shared", "p99")),
        *failing,
        ("Redis's CPU per request", f"{statistics.median(cpu):.0f} µs"),
    ]
