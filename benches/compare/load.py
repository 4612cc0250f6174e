"""Runs load generators, and measures requests per second, CPU time per request and latency."""

import dataclasses
import os
import pathlib
import re
import subprocess

from servers import LARGE, SMALL, Server
from site_folder import HERE, Site, gateway_key

CONNECTIONS = 64


@dataclasses.dataclass(frozen=True)
class Load:
    """The requests of a load."""

    method: str = "GET"
    target: str = SMALL
    body: int = 0


SMALL_ANSWERS, LARGE_ANSWERS, POSTS = Load(), Load(target=LARGE), Load("POST", "/v2/bookings", 4096)


@dataclasses.dataclass
class Cost:
    """One measurement."""

    per_second: float
    cpu_us: float
    rss_bytes: int


@dataclasses.dataclass(frozen=True)
class Times:
    """Latencies of requests, in microseconds."""

    requests: int
    p50: float
    p99: float


def saturate(site: Site, server: Server, load: Load, seconds: float, http2: bool) -> Cost:
    """Measures the maximum load of 64 connections (HTTP/2: 8 connections with 8 streams each)."""
    before = server.cpu_seconds()
    run = h2load if http2 else wrk
    requests, duration, failed = run(site, server, load, seconds)
    cpu = server.cpu_seconds() - before
    if failed or not requests:
        raise SystemExit(f"{server.name}: {failed} of {requests} requests failed")
    return Cost(requests / duration, cpu / requests * 1e6, server.rss_bytes())


def wrk(site: Site, server: Server, load: Load, seconds: float) -> tuple[int, float, int]:
    env = {**os.environ, "METHOD": load.method, "TARGET": load.target, "BODY": str(load.body),
           "KEYS": str(keys_for(site, server))}
    if server.name == "relay":
        env["RELAY"] = relay_host(site)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "keys.lua"),
               f"http://127.0.0.1:{server.port}/"]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    requests, microseconds, failed = map(int, result_of(out))
    return requests, microseconds / 1e6, failed


def h2load(_: Site, server: Server, load: Load, seconds: float) -> tuple[int, float, int]:
    command = ["h2load", "-t1", "-c8", f"-m{CONNECTIONS // 8}", f"-D{seconds}",
               "-H", f"Authorization: Bearer {gateway_key(0)}", f"http://127.0.0.1:{server.port}{load.target}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    succeeded, failed = re.search(r"(\d+) succeeded, (\d+) failed", out).groups()
    return int(succeeded), seconds, int(failed)


def paced(site: Site, server: Server, program: pathlib.Path, rate: float, seconds: float, upstream: int = 0) -> Times:
    """Measures latency at `rate` requests per second, in an open loop. With a port, the generator is also the upstream there."""
    command = [program, f"127.0.0.1:{server.port}", f"{rate:.0f}", f"{seconds}", f"{CONNECTIONS}", SMALL,
               keys_for(site, server), *([f"127.0.0.1:{upstream}"] if upstream else [])]
    out = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    requests, failed, *times = map(float, result_of(out))
    if failed or not requests:
        raise SystemExit(f"{server.name}: {failed:.0f} connections failed under a paced load")
    return Times(int(requests), *times)


def result_of(out: str) -> list[str]:
    line = next((line for line in out.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"the load generator printed no result:\n{out}")
    return line.split()[1:]


def keys_for(site: Site, server: Server) -> pathlib.Path:
    return site.folder / ("relay.keys" if server.name == "relay" else "load.keys")


def relay_host(site: Site) -> str:
    """Returns the `Host` that the upstream expects, which the relay cannot add."""
    return re.search(r"127\.0\.0\.1:\d+ reuseport", (site.folder / "upstream.conf").read_text()).group().split()[0]
