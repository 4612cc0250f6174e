"""Measures idle memory, start time and size of calgate."""

import http.client
import pathlib
import subprocess
import time

import proc
from servers import SMALL, Job, all_running, command_of, running
from site_folder import Site, free_port, gateway_key


def measure(site: Site, programs: dict[str, pathlib.Path], rounds: int) -> list[tuple[str, str]]:
    """Returns rows of name and value."""
    starts = sorted(start_ms(site, programs) for _ in range(rounds))
    small, large = idle(site, programs, 1000), idle(site, programs, 100_000)
    each = (large[0] - small[0]) / 99_000
    return [
        ("idle RSS, 1,000 consumers, one worker", f"{small[0] / 1e6:.1f} MB"),
        ("idle RSS, 100,000 consumers", f"{large[0] / 1e6:.1f} MB"),
        ("memory per configured consumer at 100,000", f"{each:.0f} B"),
        ("peak RSS while loading 100,000 consumers", f"{large[1] / 1e6:.1f} MB"),
        ("`calgate check` of 100,000 consumers", f"{check_ms(site, programs):.0f} ms"),
        ("start to first answered request, 1,000 consumers (median)", f"{starts[len(starts) // 2]:.1f} ms"),
        ("stripped binary", f"{programs['calgate'].stat().st_size / 1e6:.1f} MB"),
    ]


def idle(site: Site, programs: dict[str, pathlib.Path], consumers: int) -> tuple[int, int]:
    """Returns the resident memory of an idle process, and its maximum so far."""
    with all_running(site, programs, Job(consumers=consumers), ["calgate"]) as servers:
        time.sleep(4)  # what reading the config took is given back after two seconds
        pid = servers["calgate"].process.pid
        return proc.rss_bytes(pid), proc.peak_bytes(pid)


def check_ms(site: Site, programs: dict[str, pathlib.Path]) -> float:
    """Returns the time to read and check the configuration that the last `idle` wrote."""
    start = time.monotonic()
    subprocess.run([str(programs["calgate"]), "check", "--config", str(site.folder / "calgate.toml")], check=True,
                   capture_output=True)
    return (time.monotonic() - start) * 1e3


def start_ms(site: Site, programs: dict[str, pathlib.Path]) -> float:
    """Returns the time from the start of the process to the end of its first response."""
    http_port, port = free_port(), free_port()
    consumers = site.write_keys(1000)
    upstream = site.fill("upstream.conf", HTTP=http_port, HTTPS=free_port(), WORKERS=1)
    with running(site, "upstream", http_port, ["nginx", "-c", upstream]):
        command = command_of(site, "calgate", programs, Job(), port, http_port, consumers)
        start = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        try:
            wait_for_answer(port)
            return (time.monotonic() - start) * 1e3
        finally:
            process.terminate()
            process.wait(20)


def wait_for_answer(port: int) -> None:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", SMALL, headers={"Authorization": f"Bearer {gateway_key(7)}"})
            if connection.getresponse().read():
                return
        except ConnectionRefusedError:
            time.sleep(0.0005)
