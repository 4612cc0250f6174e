#!/usr/bin/env python3
"""Runs HTTP clients and SDKs of other languages against calgate and a simulated Cal.com (`make clients`).

Installs the clients into target/clients, at fixed versions, and prints one line for each check. A group whose clients cannot be
installed is skipped with a message. The exit code is 1 if a check fails, or if no check ran.
usage: run.py [npm|pypi|java|curl …]
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import services

HERE = Path(__file__).resolve().parent
INSTALLED = services.ROOT / "target/clients"


class Skipped(Exception):
    """A group of checks cannot run here."""


def install(folder, wanted, line):
    """Runs the command `line`, which installs the packages of the file `wanted`, unless they are installed already."""
    done, text = folder / "installed", wanted.read_text(encoding="utf-8")
    if done.exists() and done.read_text(encoding="utf-8") == text:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(wanted, folder)
    try:
        run = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        raise Skipped(f"{line[0]} does not install {wanted.name} within 600 s") from None
    if run.returncode != 0:
        raise Skipped(f"{line[0]} cannot install {wanted.name}: {run.stderr.strip()[-300:]}")
    done.write_text(text, encoding="utf-8")


def require(program):
    """Skips the group if a program is not installed."""
    if not shutil.which(program):
        raise Skipped(f"{program} is not installed")


def npm(environment):
    require("npm")
    folder = INSTALLED / "npm"
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    install(folder, HERE / "npm/package.json", ["npm", "install", *quiet])
    for script in HERE.glob("npm/*.mjs"):
        shutil.copy(script, folder)
    for script in ("http.mjs", "sdk.mjs", "mcp.mjs"):
        yield from reports(["node", script], environment, cwd=folder)


def pypi(environment):
    folder = INSTALLED / "pypi"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    install(folder, HERE / "pypi/requirements.txt", [*pip, "--target", ".", "--requirement", "requirements.txt"])
    environment = {**environment, "PYTHONPATH": os.pathsep.join(map(str, (folder, INSTALLED, HERE / "pypi")))}
    generate(environment)
    for script in ("http_clients.py", "generated.py"):
        yield from reports([sys.executable, HERE / "pypi" / script], environment)


def generate(environment):
    """Generates the SDK from openapi.json into target/clients/cal_client."""
    config = INSTALLED / "generator.yaml"
    config.write_text("post_hooks: []\n", encoding="utf-8")
    line = [sys.executable, "-m", "openapi_python_client", "generate", "--path", HERE / "openapi.json", "--overwrite"]
    line += ["--meta", "none", "--output-path", INSTALLED / "cal_client", "--config", config, "--fail-on-warning"]
    subprocess.run(line, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)


def java(environment):
    require("java")
    yield from reports(["java", HERE / "java/Clients.java"], environment)


def curl(environment):
    require("curl")
    yield from reports([sys.executable, HERE / "curl.py"], {**environment, "PYTHONPATH": str(HERE / "pypi")})


def reports(line, environment, **options):
    """Runs a program, and yields the name of each of its checks, with the reason of the failure or None."""
    environment = {**os.environ, "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    run = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8", **options)
    with run:
        for text in run.stdout:
            report = json.loads(text)
            yield report["check"], report["why"] and " ".join(report["why"].split())
    if run.returncode != 0:
        yield f"{line[0]} {Path(line[1]).name}", f"exits with {run.returncode}"


def main():
    groups = {"npm": npm, "pypi": pypi, "java": java, "curl": curl}
    chosen = sys.argv[1:] or list(groups)
    passed = failed = skipped = 0
    services.build()
    with services.running() as environment:
        for group in chosen:
            try:
                for check, why in groups[group](environment):
                    print(f"ok      {check}" if why is None else f"FAILED  {check}: {why}", flush=True)
                    passed, failed = (passed + 1, failed) if why is None else (passed, failed + 1)
            except Skipped as reason:
                print(f"skipped: {group}: {reason}", flush=True)
                skipped += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped" if skipped else f"{passed} passed, {failed} failed")
    # If every group was skipped, nothing was checked.
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
