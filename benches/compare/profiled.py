#!/usr/bin/env python3
"""Builds target/profiled/calgate, a release build that is optimized with a profile (`make release`): builds calgate with
instrumentation, runs it under the load of the comparison, and builds it again with the profile.

A profile fits one compiler and one state of the code. So each run makes a new one."""

import json
import pathlib
import platform
import shutil
import subprocess
import tempfile

from load import LARGE_ANSWERS, POSTS, SMALL_ANSWERS, saturate
from needed import install_missing
from servers import Job, all_running
from site_folder import HERE, Site

ROOT = HERE.parent.parent
FOLDER = ROOT / "target" / "profiled"
JOBS = [Job(), Job(budget=True), Job(access_log=True), Job(tls=True)]
SECONDS = {SMALL_ANSWERS: 3, LARGE_ANSWERS: 2, POSTS: 2}


def build() -> pathlib.Path:
    """Builds the program and returns its path."""
    compiler = dict(line.split(": ", 1) for line in output("rustc", "-vV").splitlines() if ": " in line)
    host = compiler["host"]
    tool = pathlib.Path(output("rustc", "--print", "sysroot")) / "lib/rustlib" / host / "bin/llvm-profdata"
    if not tool.exists():
        raise SystemExit("the compiler's llvm-profdata is missing; get it by `rustup component add llvm-tools`")
    seen, profile, order = FOLDER / "seen", FOLDER / "profile", FOLDER / "order"
    shutil.rmtree(seen, ignore_errors=True)
    train(cargo(host, "watched", f"-Cprofile-generate={seen}", "-Cllvm-args=-pgo-temporal-instrumentation"))
    subprocess.run([tool, "merge", "-o", profile, seen], check=True)
    subprocess.run([tool, "order", "-o", order, profile], check=True)
    program = FOLDER / "calgate"
    shutil.copy2(cargo(host, "tuned", f"-Cprofile-use={profile}", *laid_out(host, order)), program)
    return program


def laid_out(host: str, order: pathlib.Path) -> list[str]:
    """Returns linker flags that reduce resident memory: functions in the order of their first calls, and packed relocations
    if the loader of the system supports them."""
    if host != "x86_64-unknown-linux-gnu":  # elsewhere, Rust's linker is not LLD, which takes such a list
        return []
    flags = [f"--symbol-ordering-file={order}", "--no-warn-symbol-ordering"]
    name, version = platform.libc_ver()
    if name == "glibc" and [int(part) for part in version.split(".")] >= [2, 36]:
        flags.append("-zpack-relative-relocs")
    return [f"-Clink-arg=-Wl,{flag}" for flag in flags]


def cargo(host: str, folder: str, *flags: str) -> pathlib.Path:
    """Builds with compiler flags. Naming the target keeps the flags away from build scripts and macros."""
    target = FOLDER / folder
    command = ["cargo", "build", "--release", "--locked", "--bin", "calgate", "--target", host, "--target-dir", target,
               "--config", f"target.{host}.rustflags = {json.dumps(flags)}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return target / host / "release" / "calgate"


def train(program: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="calgate-profiled-") as folder:
        site = Site(folder)
        for job in JOBS:
            with all_running(site, {"calgate": program}, job, ["calgate"]) as servers:
                for load, seconds in SECONDS.items():
                    saturate(site, servers["calgate"], load, seconds, job.http2)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    install_missing()
    print(build())
