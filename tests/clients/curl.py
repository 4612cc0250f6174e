"""Sends requests with curl and a plain socket, in ways that libraries rarely use."""

import os
import socket
import subprocess
from urllib.parse import urlsplit

from report import check, expect

KEYED, KEYLESS, KEY = (os.environ[name] for name in ("KEYED", "KEYLESS", "KEY"))
OWN = ["-H", f"Authorization: Bearer {KEY}"]
JSON = ["-H", "Content-Type: application/json"]
BOOKING = '{"eventTypeId": 1, "attendee": {"name": "Zoe"}}'


def curl(*arguments):
    """Runs curl. Returns status, protocol and body."""
    line = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code} %{http_version}", *arguments]
    run = subprocess.run(line, capture_output=True, text=True, check=False)
    expect(run.returncode == 0, f"curl exits with {run.returncode}: {run.stderr.strip()}")
    body, _, last = run.stdout.rpartition("\n")
    status, protocol = last.split()
    return int(status), protocol, body


def succeeds(name, *arguments, protocol="1.1", status=200):
    with check(f"curl: {name}"):
        answer = curl(*arguments)
        expect(answer[:2] == (status, protocol), f"{answer[0]} over HTTP/{answer[1]}: {answer[2][:200]}")


def half_closed():
    """Sends a request and closes the sending side at once (RFC 9112 §9.6). Returns the status line."""
    parts = urlsplit(KEYED)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        head = f"GET /v2/me HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Api-Key: {KEY}\r\n\r\n"
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline().decode()


succeeds("GET", *OWN, f"{KEYED}/v2/me")
succeeds("HTTP/1.0", "--http1.0", *OWN, f"{KEYED}/v2/me", protocol="1")
succeeds("HTTP/1.0 with keep-alive", "--http1.0", "-H", "Connection: keep-alive", *OWN, f"{KEYED}/v2/me", protocol="1")
succeeds("an offer of h2c", "--http2", *OWN, f"{KEYED}/v2/me")
succeeds("HTTP/2 with prior knowledge", "--http2-prior-knowledge", *OWN, f"{KEYED}/v2/me", protocol="2")
succeeds("compressed", "--compressed", *OWN, f"{KEYED}/v2/me")
succeeds("a trailing slash and another case", *OWN, f"{KEYED}/v2/me/")
succeeds("HEAD", "-I", *OWN, f"{KEYED}/v2/me")
EXPECT = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"]
succeeds("Expect: 100-continue", *EXPECT, *OWN, *JSON, "-d", BOOKING, f"{KEYED}/v2/bookings")
succeeds(
    "Expect: 100-continue over HTTP/2",
    "--http2-prior-knowledge", *EXPECT, *OWN, *JSON, "-d", BOOKING, f"{KEYED}/v2/bookings",
    protocol="2",
)
CHUNKED = ["-H", "Transfer-Encoding: chunked"]
succeeds("a body in chunks", *CHUNKED, *OWN, *JSON, "-d", BOOKING, f"{KEYED}/v2/bookings")
TLS = ["-H", "Connection: Upgrade", "-H", "Upgrade: TLS/1.2"]
succeeds("Upgrade: TLS/1.2, as Apache HttpClient sends it", *TLS, *OWN, f"{KEYED}/v2/me")
succeeds("Upgrade: TLS/1.2 with a body", *TLS, *OWN, *JSON, "-d", BOOKING, f"{KEYED}/v2/bookings")
succeeds("keyless, of another Host", "-H", "Host: foreign.example", f"{KEYLESS}/v2/me", status=421)
FORM = ["-H", "Origin: https://foreign.example", "-d", "a=b"]
succeeds("keyless, a form of another origin", *FORM, f"{KEYLESS}/v2/bookings", status=403)
succeeds("keyless, by the name localhost", f"{KEYLESS.replace('127.0.0.1', 'localhost')}/v2/me")
with check("a client that closes its sending side gets its response"):
    line = half_closed()
    expect(line.startswith("HTTP/1.1 200"), f"status line {line!r}")
