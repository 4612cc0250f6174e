#!/usr/bin/env python3
"""Compares calgate with nginx and HAProxy: the same job under the same load (`make bench`, or see --help)."""

import argparse
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Hashable
from typing import TypeVar

import footprint
import proc
import profiled
import report
import sharing
from load import LARGE_ANSWERS, POSTS, SMALL_ANSWERS, Cost, Load, paced, saturate
from needed import install_missing
from servers import Job, Server, all_running, check, in_front_of, upstream
from site_folder import HERE, Site, free_port

ROOT = HERE.parent.parent
Name = TypeVar("Name", bound=Hashable)
PROXIES = ["calgate", "nginx", "haproxy"]
#           title, job, load, servers
VARIANTS = {
    "base": ("HTTP upstream, 1 KB, 1,000 consumers", Job(), SMALL_ANSWERS, [*PROXIES, "plain", "relay"]),
    "https": ("HTTPS upstream, verified, 1 KB", Job(tls=True), SMALL_ANSWERS, [*PROXIES, "plain"]),
    "large": ("HTTP upstream, 64 KB answers", Job(), LARGE_ANSWERS, PROXIES),
    "https-large": ("HTTPS upstream, 64 KB answers", Job(tls=True), LARGE_ANSWERS, PROXIES),
    "post": ("HTTP upstream, POST of 4 KB", Job(), POSTS, PROXIES),
    "one": ("1 consumer", Job(consumers=1), SMALL_ANSWERS, PROXIES),
    "many": ("100,000 consumers", Job(consumers=100_000), SMALL_ANSWERS, PROXIES),
    "log": ("Access log on", Job(access_log=True), SMALL_ANSWERS, PROXIES),
    "budget": ("calgate's budget of the credential on, never short", Job(budget=True), SMALL_ANSWERS, PROXIES),
    "http2": ("HTTP/2 downstream", Job(http2=True), SMALL_ANSWERS, PROXIES),
}
BESIDES = ["latency", "two", "sharing", "footprint"]
QUICK = ["base", "https", "post", "log", "budget", "http2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="some variants for a moment with the dev build: are all answers right? Times mean nothing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of load on each server in each round")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *BESIDES], metavar="VARIANT",
                        help=f"of {', '.join([*VARIANTS, *BESIDES])}; RESULTS.md is left as it is")
    parser.add_argument("--calgate", type=pathlib.Path, metavar="PROGRAM", help="compare this build of it")
    parser.add_argument("--keep", action="store_true", help="leave the run's folder, with all configs and logs")
    options = parser.parse_args()
    install_missing()
    folder = tempfile.mkdtemp(prefix="calgate-compare-")
    try:
        site = Site(folder)
        if options.quick:
            quick(site, {"calgate": options.calgate or cargo("calgate")}, cargo("paced"))
        else:
            programs = {"calgate": options.calgate.resolve()} if options.calgate else builds()
            run(site, programs, cargo("paced", "--release"), options)
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def run(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path, options: argparse.Namespace) -> None:
    wanted = options.only or [*VARIANTS, *BESIDES]
    sections, measured = [report.header()], {}
    for key in [key for key in VARIANTS if key in wanted or (key == "base" and "latency" in wanted)]:
        title, job, load, names = VARIANTS[key]
        with all_running(site, programs, job, [name for name in names if name != "plain" or name in programs]) as servers:
            measured[key] = rounds_of(site, servers, job, load, options)
        show(sections, report.costs(title, measured[key]))
    if "base" in measured and "many" in measured:
        show(sections, report.growth("CPU per request, 100,000 consumers over 1,000", measured["base"], measured["many"], "cpu_us"))
    if "latency" in wanted:
        show(sections, latency(site, programs, generator, measured["base"], options))
    if "two" in wanted:
        one, two = two_workers(site, programs, options)
        show(sections, report.costs("Two workers", two))
        show(sections, report.growth("Requests/s, two workers over one", one, two, "per_second"))
    if "sharing" in wanted:
        facts = sharing.measure(site, programs, generator, options.rounds, options.seconds)
        show(sections, report.facts("Limits shared through Redis", facts))
    if "footprint" in wanted:
        show(sections, report.facts("At rest", footprint.measure(site, programs, options.rounds)))
    if not options.only:
        (HERE / "RESULTS.md").write_text("\n".join(sections))


def show(sections: list[str], section: str) -> None:
    print(section, flush=True)
    sections.append(section)


def rounds_of(site: Site, servers: dict[Name, Server], job: Job, load: Load,
              options: argparse.Namespace) -> dict[Name, list[Cost]]:
    """Measures all servers in each round, and starts each round with another server. One round warms up."""
    for server in servers.values():
        check(server, job)
        saturate(site, server, load, 1, job.http2)
    costs = {name: [] for name in servers}
    for number in range(options.rounds):
        for name in turned(list(servers), number):
            costs[name].append(saturate(site, servers[name], load, options.seconds, job.http2))
    return costs


def latency(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path,
            measured: dict[str, list[Cost]], options: argparse.Namespace) -> str:
    """Measures latency of all servers at the same rate, half of what the slowest proxy reached. The server has a core of its
    own. The generator, which is also the upstream, has the other. Many short turns spread disturbances over all servers."""
    rate = min(max(cost.per_second for cost in measured[name]) for name in PROXIES) / 2
    port = free_port()
    times = {name: [] for name in PROXIES}
    with (in_front_of(port, site, programs, Job(), PROXIES) as servers,
          proc.apart(server.process.pid for server in servers.values()) as how):
        for number in range(options.rounds * options.seconds):
            for name in turned(PROXIES, number):
                times[name].append(paced(site, servers[name], generator, rate, 1, port))
    return report.latencies(rate, how, times)


def two_workers(site: Site, programs: dict[str, pathlib.Path],
                options: argparse.Namespace) -> tuple[dict[str, list[Cost]], dict[str, list[Cost]]]:
    """Measures one worker and two workers, in the same rounds and with the same upstream."""
    one, two = Job(), Job(workers=2)
    with (upstream(site, one) as port, in_front_of(port, site, programs, one, PROXIES) as ones,
          in_front_of(port, site, programs, two, PROXIES) as twos):
        labelled = {(name, workers): server for name in PROXIES
                    for workers, server in [(1, ones[name]), (2, twos[name])]}
        costs = rounds_of(site, labelled, two, SMALL_ANSWERS, options)
    return tuple({name: costs[name, workers] for name in PROXIES} for workers in (1, 2))


def turned(names: list[Name], by: int) -> list[Name]:
    by %= len(names)
    return names[by:] + names[:by]


def quick(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path) -> None:
    """Sends each request to every server once, then loads it for a second. Exits with an error after a wrong response."""
    for key in QUICK:
        title, job, load, names = VARIANTS[key]
        with all_running(site, programs, job, [name for name in names if name != "plain"]) as servers:
            for server in servers.values():
                check(server, job)
                saturate(site, server, load, 1, job.http2)
                if key == "base" and server.name != "relay":
                    paced(site, server, generator, 500, 1)
        print(f"right: {title}", flush=True)
    port = free_port()
    with (in_front_of(port, site, programs, Job(), PROXIES) as servers,
          proc.apart(server.process.pid for server in servers.values())):
        for server in servers.values():
            paced(site, server, generator, 500, 1, port)
    print("right: the load as upstream", flush=True)


def builds() -> dict[str, pathlib.Path]:
    """Returns the builds of `make release` and of `cargo build --release`."""
    return {"calgate": profiled.build(), "plain": cargo("calgate", "--release")}


def cargo(program: str, *options: str) -> pathlib.Path:
    """Builds the gateway or the load generator, which is an example of the crate."""
    kind, folder = ("--bin", "") if program == "calgate" else ("--example", "examples")
    subprocess.run(["cargo", "build", "--locked", kind, program, *options], cwd=ROOT, check=True)
    return ROOT / "target" / ("release" if options else "debug") / folder / program


if __name__ == "__main__":
    main()
