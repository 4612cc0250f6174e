"""Sends the requests of requests.json with HTTP clients of Python. Each client adds its usual headers."""

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
import urllib3

from report import check, expect

KEYED, KEYLESS, KEY = (os.environ[name] for name in ("KEYED", "KEYLESS", "KEY"))


def typed(headers, document):
    """Returns headers and body for a client that does not encode JSON."""
    if document is None:
        return headers, None
    return {**headers, "Content-Type": "application/json"}, json.dumps(document, ensure_ascii=False).encode()


def by_requests(method, url, headers, document):
    response = requests.request(method, url, headers=headers, json=document, timeout=60)
    return response.status_code, response.text


def by_httpx(method, url, headers, document, **options):
    # Loading certificates takes long, and the test uses no TLS.
    with httpx.Client(timeout=60, verify=False, **options) as client:
        response = client.request(method, url, headers=headers, json=document)
        return response.status_code, response.text


def by_httpx_h2(method, url, headers, document):
    return by_httpx(method, url, headers, document, http1=False, http2=True)


def by_aiohttp(method, url, headers, document):
    async def send():
        async with aiohttp.ClientSession() as session:
            async with session.request(method, url, headers=headers, json=document) as response:
                return response.status, await response.text()

    return asyncio.run(send())


def by_urllib3(method, url, headers, document):
    response = urllib3.PoolManager().request(method, url, headers=headers, json=document, retries=False)
    return response.status, response.data.decode()


def by_urllib(method, url, headers, document):
    headers, body = typed(headers, document)
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def by_http_client(method, url, headers, document):
    headers, body = typed(headers, document)
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


CLIENTS = {
    "requests": by_requests,
    "httpx": by_httpx,
    "httpx-h2": by_httpx_h2,
    "aiohttp": by_aiohttp,
    "urllib3": by_urllib3,
    "urllib": by_urllib,
    "http.client": by_http_client,
}


def compare(wanted, status, text):
    expect(status == wanted["status"], f"status {status}, not {wanted['status']}: {text[:200]}")
    document = json.loads(text)
    data = document.get("data") or {}
    for name, value in wanted.get("data", {}).items():
        expect(data.get(name) == value, f"data.{name} is {data.get(name)}, not {value}")
    for name, value in wanted.get("upstream", {}).items():
        sent = (data.get("headers") or {}).get(name)
        expect(sent == value, f"upstream {name} is {sent}, not {value}")
    expect(data.get("bodyLength", 0) >= wanted.get("body_bytes", 0), f"body of {data.get('bodyLength')} bytes")
    for words in wanted.get("says", []):
        expect(words in text, f'no "{words}" in {text[:200]}')
    if wanted.get("error"):
        expect(document["status"] == "error" and document["error"]["message"], f"no error.message in {text[:200]}")


with open(os.environ["REQUESTS"], encoding="utf-8") as file:
    REQUESTS = json.loads(file.read().replace("{key}", KEY))

for name, send in CLIENTS.items():
    for wanted in REQUESTS:
        if name in wanted.get("unless", []):
            continue
        with check(f"{name}: {wanted['name']}"):
            base = KEYLESS if wanted.get("gateway") == "keyless" else KEYED
            answer = send(wanted.get("method", "GET"), base + wanted["path"], wanted["headers"], wanted.get("json"))
            compare(wanted, *answer)
