#!/usr/bin/env python3
"""calgate beside nginx and HAProxy: the same job, the same load, in one run. `make bench`, or see --help."""

import argparse
import pathlib
import shutil
import subprocess
import tempfile

import footprint
import profiled
import report
import sharing
from load import LARGE_ANSWERS, POSTS, SMALL_ANSWERS, Cost, Load, paced, saturate
from needed import install_missing
from servers import Job, Server, all_running, check
from site_folder import HERE, Site

ROOT = HERE.parent.parent
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
    "two": ("Two workers", Job(workers=2), SMALL_ANSWERS, PROXIES),
}
QUICK = ["base", "https", "post", "log", "budget", "http2"]



def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="some variants for a moment with the dev build: are all answers right? Times mean nothing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of load on each server in each round")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, "latency", "sharing", "footprint"], metavar="VARIANT",
                        help=f"of {', '.join(VARIANTS)}, latency, sharing, footprint; RESULTS.md is left as it is")
    parser.add_argument("--calgate", type=pathlib.Path, metavar="PROGRAM", help="compare this build of it")
    parser.add_argument("--keep", action="store_true", help="leave the run's folder, with all configs and logs")
    options = parser.parse_args()
    install_missing()
    folder = tempfile.mkdtemp(prefix="calgate-compare-")
    try:
        site = Site(folder)
        generator = site.folder / "paced"
        # It needs nothing but std.
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", generator, HERE / "paced.rs"], check=True)
        if options.quick:
            quick(site, {"calgate": options.calgate or cargo()}, generator)
        else:
            programs = {"calgate": options.calgate.resolve()} if options.calgate else builds()
            run(site, programs, generator, options)
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def run(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path, options: argparse.Namespace) -> None:
    wanted = options.only or [*VARIANTS, "latency", "sharing", "footprint"]
    sections, measured = [report.header()], {}
    for key in [key for key in VARIANTS if key in wanted or (key == "base" and "latency" in wanted)]:
        title, job, load, names = VARIANTS[key]
        with all_running(site, programs, job, [name for name in names if name != "plain" or name in programs]) as servers:
            measured[key] = rounds_of(site, servers, job, load, options)
            show(sections, report.costs(title, measured[key]))
            if key == "base" and "latency" in wanted:
                show(sections, latency(site, servers, generator, measured[key], options))
    if "base" in measured:
        for key, title, field in [("many", "CPU per request, 100,000 consumers over 1,000", "cpu_us"),
                                  ("two", "Requests/s, two workers over one", "per_second")]:
            if key in measured:
                show(sections, report.growth(title, measured["base"], measured[key], field))
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


def rounds_of(site: Site, servers: dict[str, Server], job: Job, load: Load,
              options: argparse.Namespace) -> dict[str, list[Cost]]:
    """Interleaved: each round asks every server, each time beginning with another. One round warms up."""
    for server in servers.values():
        check(server, job)
        saturate(site, server, load, 1, job.http2)
    costs = {name: [] for name in servers}
    for number in range(options.rounds):
        for name in turned(list(servers), number):
            costs[name].append(saturate(site, servers[name], load, options.seconds, job.http2))
    return costs


def latency(site: Site, servers: dict[str, Server], generator: pathlib.Path, measured: dict[str, list[Cost]],
            options: argparse.Namespace) -> str:
    """All servers at the same rate: half of what the slowest proxy reached."""
    rate = min(max(cost.per_second for cost in measured[name]) for name in PROXIES) / 2
    pairs = {name: [] for name in PROXIES}
    for number in range(options.rounds):
        for name in turned(PROXIES, number):
            pairs[name].append(paced(site, servers[name], generator, rate, options.seconds))
    return report.latencies(rate, pairs)


def turned(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def quick(site: Site, programs: dict[str, pathlib.Path], generator: pathlib.Path) -> None:
    """Asks every server everything once, then for a second. Ends with an error if any answer is wrong."""
    for key in QUICK:
        title, job, load, names = VARIANTS[key]
        with all_running(site, programs, job, [name for name in names if name != "plain"]) as servers:
            for server in servers.values():
                check(server, job)
                saturate(site, server, load, 1, job.http2)
                if key == "base" and server.name != "relay":
                    paced(site, server, generator, 500, 1)
        print(f"right: {title}", flush=True)


def builds() -> dict[str, pathlib.Path]:
    """calgate as `make release` builds it, and as cargo does by itself."""
    return {"calgate": profiled.build(), "plain": cargo("--release")}


def cargo(*options: str) -> pathlib.Path:
    subprocess.run(["cargo", "build", "--locked", "--bin", "calgate", *options], cwd=ROOT, check=True)
    return ROOT / "target" / ("release" if options else "debug") / "calgate"


if __name__ == "__main__":
    main()
