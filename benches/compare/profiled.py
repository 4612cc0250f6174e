#!/usr/bin/env python3
"""A release build tuned by a profile of itself: `make release`. It is built once to be watched, put under the load of the
comparison, and built again by what was seen. What comes of it is target/profiled/calgate.

A profile is good for one compiler and one state of the code, so it is made anew and never kept."""

import pathlib
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
    """The path of the program."""
    compiler = dict(line.split(": ", 1) for line in output("rustc", "-vV").splitlines() if ": " in line)
    merger = pathlib.Path(output("rustc", "--print", "sysroot")) / "lib/rustlib" / compiler["host"] / "bin/llvm-profdata"
    if not merger.exists():
        raise SystemExit("the compiler's llvm-profdata is missing; get it by `rustup component add llvm-tools`")
    seen = FOLDER / "seen"
    shutil.rmtree(seen, ignore_errors=True)
    train(cargo(compiler["host"], f"-Cprofile-generate={seen}", "watched"))
    profile = FOLDER / "profile"
    subprocess.run([merger, "merge", "-o", profile, seen], check=True)
    program = FOLDER / "calgate"
    shutil.copy2(cargo(compiler["host"], f"-Cprofile-use={profile}", "tuned"), program)
    return program


def cargo(host: str, flag: str, folder: str) -> pathlib.Path:
    """Builds with a flag of the compiler. That the target is named keeps the flag from build scripts and macros."""
    target = FOLDER / folder
    command = ["cargo", "build", "--release", "--locked", "--bin", "calgate", "--target", host, "--target-dir", target,
               "--config", f'target.{host}.rustflags = ["{flag}"]']
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
