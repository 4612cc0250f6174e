"""Working folder of a run: keys, certificates, key maps, bodies, and free ports."""

import binascii
import hashlib
import os
import pathlib
import socket
import subprocess

HERE = pathlib.Path(__file__).parent
CREDENTIAL = "cal_live_" + "0123456789abcdef" * 2
SMALL_BYTES, LARGE_BYTES = 1024, 64 * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gateway_key(number: int) -> str:
    """Returns a gateway key: 160 bits, derived from a number, and their CRC-32."""
    digits = hashlib.sha256(f"consumer {number}".encode()).hexdigest()[:40]
    return f"calgate_{digits}{binascii.crc32(digits.encode()):08x}"


def json_of(size: int) -> str:
    start, end = '{"status":"success","data":"', '"}'
    return start + "x" * (size - len(start) - len(end)) + end


class Site:
    """Files in one folder. `write(name, text)` and `fill(template, values)` return the path of the file."""

    def __init__(self, folder: str):
        self.folder = pathlib.Path(folder)
        self.folder.chmod(0o755)  # nginx's workers drop root
        self.values = {"DIR": folder, "CREDENTIAL": CREDENTIAL, "SMALL": json_of(SMALL_BYTES)}
        self.write("large.json", json_of(LARGE_BYTES))
        self.write("credential", CREDENTIAL).chmod(0o600)
        self.write("relay.keys", f"Bearer {CREDENTIAL}\n")
        self._make_certificates()

    def write(self, name: str, text: str) -> pathlib.Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def fill(self, template: str, name: str = "", **values: object) -> pathlib.Path:
        """Writes a file from a template, with this name or that of the template. Replaces each `@NAME@` by its value."""
        text = (HERE / "templates" / template).read_text()
        for key, value in {**self.values, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        return self.write(name or template, text)

    def write_keys(self, consumers: int) -> str:
        """Writes the key maps of all proxies, and returns the `[consumers]` part of calgate's configuration."""
        keys = [gateway_key(number) for number in range(consumers)]
        self.write("load.keys", "".join(f"Bearer {key}\n" for key in keys))
        self.write("nginx.keys", "".join(f'"Bearer {key}" c{n};\n' for n, key in enumerate(keys)))
        self.write("haproxy.keys", "".join(f"{key} c{n}\n" for n, key in enumerate(keys)))
        hashes = (hashlib.sha256(key.encode()).hexdigest() for key in keys)
        sections = (f'[consumers.c{n}]\nkeys = ["sha256:{h}"]\ncredential = "main"\ntier = "endless"\n'
                    for n, h in enumerate(hashes))
        return "\n".join(sections)

    def _make_certificates(self) -> None:
        """Creates a CA, and a certificate for `localhost` that it signs."""
        self.write("san", "subjectAltName=DNS:localhost\n")

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=bench CA")
        openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "san", "-out", "server.pem")
        os.chmod(self.folder / "server.key", 0o600)
