"""Installs the programs that a comparison needs."""

import shutil
import subprocess

PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client",
            "openssl": "openssl", "redis-server": "redis-server"}


def install_missing() -> None:
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    root = [] if shutil.which("sudo") is None else ["sudo"]
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]):
        if subprocess.run([*root, *command], stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(f"install these packages first: {' '.join(missing)}")
