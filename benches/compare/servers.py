"""Starts and stops the upstream and the proxies, all configured for the same job."""

import contextlib
import dataclasses
import http.client
import pathlib
import socket
import subprocess
import time

import proc
from site_folder import LARGE_BYTES, SMALL_BYTES, Site, free_port, gateway_key

SMALL, LARGE, DENIED = "/v2/bookings/4kUNo9Xh1ZrTq", "/v2/slots", "/v2/organizations/1/teams"


@dataclasses.dataclass(frozen=True)
class Job:
    """The job for which the servers of one comparison are configured."""

    consumers: int = 1000
    tls: bool = False
    workers: int = 1
    access_log: bool = False
    http2: bool = False
    budget: bool = False
    store: int = 0  # the port of a Redis that limits are shared on


@dataclasses.dataclass
class Server:
    """A running server."""

    name: str
    port: int
    process: subprocess.Popen

    def cpu_seconds(self) -> float:
        return proc.cpu_seconds(self.process.pid)

    def rss_bytes(self) -> int:
        return proc.rss_bytes(self.process.pid)


@contextlib.contextmanager
def running(site: Site, name: str, port: int, command: list[object], patience: float = 60):
    """Runs a server within the block. Its output goes to files of the site."""
    with open(site.folder / f"{name}.out", "w") as out, open(site.folder / f"{name}.err", "a") as err:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    try:
        wait_for_port(process, name, port, patience)
        yield Server(name, port, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for_port(process: subprocess.Popen, name: str, port: int, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}; see {name}.err in the run's folder (--keep)")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.002)
    raise SystemExit(f"{name} does not listen on port {port} after {patience} s")


@contextlib.contextmanager
def all_running(site: Site, programs: dict[str, pathlib.Path], job: Job, names: list[str]):
    """Runs the upstream and the named servers, and yields `{name: Server}`. `programs` are the builds of calgate."""
    with upstream(site, job) as port, in_front_of(port, site, programs, job, names) as servers:
        yield servers


@contextlib.contextmanager
def upstream(site: Site, job: Job):
    """Runs the upstream of a job, and yields its port."""
    http, https = free_port(), free_port()
    config = site.fill("upstream.conf", HTTP=http, HTTPS=https, WORKERS=job.workers)
    with running(site, "upstream", http, ["nginx", "-c", config]):
        yield https if job.tls else http


@contextlib.contextmanager
def in_front_of(upstream: int, site: Site, programs: dict[str, pathlib.Path], job: Job, names: list[str]):
    """Runs the named servers, and yields `{name: Server}`. The upstream may start later."""
    consumers = site.write_keys(job.consumers)
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in names:
            port = free_port()
            command = command_of(site, name, programs, job, port, upstream, consumers)
            servers[name] = stack.enter_context(running(site, name, port, command))
        yield servers


def command_of(site: Site, name: str, programs: dict[str, pathlib.Path], job: Job, port: int, upstream: int,
               consumers: str) -> list[object]:
    """Writes the configuration of a server, and returns the command that starts it."""
    values = {
        "PORT": port, "UPSTREAM": upstream, "WORKERS": job.workers,
        "SCHEME": "https" if job.tls else "http",
        "HOST": f"localhost:{upstream}" if job.tls else f"127.0.0.1:{upstream}",
    }
    if name in programs:
        ca_file = f'ca_file = "{site.folder}/ca.pem"' if job.tls else ""
        budget = 'mode = "enforce"' if job.budget else 'mode = "off"'
        store = f'[limit_store]\nredis = "redis://127.0.0.1:{job.store}"' if job.store else ""
        config = site.fill("calgate.toml", f"{name}.toml", **values, CA_FILE=ca_file, BUDGET=budget, STORE=store,
                           ACCESS_LOG=str(job.access_log).lower())
        with config.open("a") as file:
            file.write(consumers)
        return [programs[name], "serve", "--config", config]
    if name == "nginx":
        log = f"{site.folder}/nginx.log combined buffer=64k flush=1s" if job.access_log else "off"
        http2 = "http2" if job.http2 else ""
        return ["nginx", "-c", site.fill("nginx.conf", **values, NGINX_LOG=log, NGINX_HTTP2=http2)]
    if name == "haproxy":
        tls = f"ssl verify required ca-file {site.folder}/ca.pem verifyhost localhost sni str(localhost)"
        log = {"HAPROXY_LOG": "log stdout format raw local0", "HAPROXY_LOG_LINES": "log global\n    option httplog"}
        silent = {"HAPROXY_LOG": "", "HAPROXY_LOG_LINES": ""}
        config = site.fill("haproxy.cfg", **values, **(log if job.access_log else silent),
                           HAPROXY_PROTO="proto h2" if job.http2 else "", HAPROXY_TLS=tls if job.tls else "")
        return ["haproxy", "-db", "-f", config]
    return ["haproxy", "-db", "-f", site.fill("relay.cfg", **values)]


def check(server: Server, job: Job) -> None:
    """Checks that a proxy does its job. The upstream checks the added headers."""
    if job.http2 or server.name == "relay":
        return
    known, unknown = gateway_key(job.consumers - 1), gateway_key(job.consumers)
    expected = [
        ("GET", SMALL, known, 200, SMALL_BYTES), ("GET", LARGE, known, 200, LARGE_BYTES),
        ("POST", "/v2/bookings", known, 200, SMALL_BYTES),
        ("GET", SMALL, unknown, 401, None), ("GET", DENIED, known, 403, None),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for method, target, key, status, size in expected:
        body = b'"' + b"x" * 4094 + b'"' if method == "POST" else None
        connection.request(method, target, body, {"Authorization": f"Bearer {key}", "Cookie": "a=b"})
        answer = connection.getresponse()
        got = len(answer.read())
        if answer.status != status or size not in (None, got):
            raise SystemExit(f"{server.name} answers {method} {target} with {answer.status} and {got} bytes, "
                             f"not {status} and {size}")
