"""Starts cal-sim and two gateways in front of it: one with gateway keys, and one without."""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"
PATIENCE = 15 * float(os.environ.get("CALGATE_TEST_PATIENCE", "4"))

COMMON = """
[listen]
address = "127.0.0.1:0"
admin = "off"
[upstream]
base_url = "{upstream}"
[budget]
mode = "off"
[tiers.roomy]
requests_per_minute = 1000000
[credentials.main]
kind = "api-key"
api_key = {{ env = "CAL_TEST_KEY" }}
plan = "unrestricted"
[consumers.app]
{keys}
credential = "main"
tier = "roomy"
"""

PLATFORM = """
[credentials.platform]
kind = "platform-client"
client_id = "{client_id}"
client_secret = {{ env = "CAL_TEST_SECRET" }}
plan = "unrestricted"
[consumers.backend]
keys = ["{hash}"]
credential = "platform"
tier = "roomy"
"""

KEYLESS = """
[anonymous]
consumer = "app"
"""


def build():
    """Builds both programs."""
    subprocess.run(["cargo", "build", "--locked", "--bin", "calgate", "--example", "cal-sim"], cwd=ROOT, check=True)


def new_key():
    """Returns a new gateway key and its hash."""
    line = [BUILT / "calgate", "key", "new", "app"]
    made = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return re.search(r"calgate_\w[\w-]*", made)[0], re.search(r"sha256:[0-9a-f]+", made)[0]


def start(stack, line, wanted, **environment):
    """Starts a program and waits for a line that matches `wanted`. The program ends with the stack."""
    options = {"env": {**os.environ, **environment}, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    child = stack.enter_context(subprocess.Popen(line, stdin=subprocess.DEVNULL, **options))
    stack.callback(child.kill)
    timer = threading.Timer(PATIENCE, child.kill)
    timer.start()
    printed, found = [], None
    for text in child.stdout:
        printed.append(text)
        found = re.search(wanted, text)
        if found:
            break
    timer.cancel()
    if not found:
        raise RuntimeError(f"{line[0]} did not start within {PATIENCE} s: {''.join(printed)[-2000:]}")
    threading.Thread(target=lambda: [None for _ in child.stdout], daemon=True).start()
    return found


@contextlib.contextmanager
def running():
    """Starts all programs, and yields the environment variables of the clients."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = start(stack, [BUILT / "examples/cal-sim", "--unlimited"], r"listens at (http\S+)")[1]
        sim = {"CAL_TEST_KEY": "cal_live_demo0123456789abcdef", "CAL_TEST_SECRET": "demo-platform-client-secret"}
        client_id = "cldemo0000platform"

        def gateway(name, config):
            file = folder / f"{name}.toml"
            file.write_text(config, encoding="utf-8")
            line = [BUILT / "calgate", "serve", "--config", file]
            found = start(stack, line, r'"message":"calgate is listening".*', **sim)
            return json.loads(found.string)["address"]

        (key, digest), (platform_key, platform_digest) = new_key(), new_key()
        common = COMMON.format(upstream=upstream, keys=f'keys = ["{digest}"]')
        platform = PLATFORM.format(client_id=client_id, hash=platform_digest)
        keyless = COMMON.format(upstream=upstream, keys="") + KEYLESS
        yield {
            "KEYED": gateway("keyed", common + platform),
            "KEYLESS": gateway("keyless", keyless),
            "KEY": key,
            "PLATFORM_KEY": platform_key,
            "CLIENT_ID": client_id,
            "REQUESTS": str(ROOT / "tests/clients/requests.json"),
        }
