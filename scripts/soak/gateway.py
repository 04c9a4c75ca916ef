"""The gateway that is watched: its certificates, its configuration, its process, and what it says of itself.

The server's certificate comes from an authority of its own, so that it can be renewed.
"""

import json
import re
import shutil
import signal
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from .brokers import NAMESPACE, TOPIC_BASE
from .processes import Children, SoakError, free_port, tail, wait_for

SEGMENT_BYTES = 4 << 20
UNIT = Path(__file__).parents[2] / "systemd/waystation.service"
CONFIG = """
[listener]
bind = "127.0.0.1:{port}"
certificate = "tls/server.pem"
private_key = "tls/server.key"
vehicle_ca = ["pki/vehicle-ca.pem"]
[queue]
path = "queue"
segment_size = "4 MiB"
commit_delay = "{commit_delay}"
# Full within a minute: while it fills, memory grows as it should.
duplicate_window = "256 KiB"
[records]
"*" = ["cloud", "home", "depot"]
[destinations.cloud]
type = "kafka"
namespace = "{namespace}"
pause = {pause}
[destinations.cloud.properties]
bootstrap.servers = "127.0.0.1:{kafka}"
compression.type = "lz4"
[destinations.home]
type = "mqtt"
url = "mqtt://127.0.0.1:{mqtt}"
topic_base = "{topic_base}"
layout = "records"
[destinations.depot]
type = "zmq"
bind = "tcp://127.0.0.1:{zmq}"
namespace = "{namespace}"
metadata = true
[admin]
bind = "127.0.0.1:{admin}"
"""


def unit_environment() -> list[str]:
    """What the unit starts it with: how memory is given back is part of it."""
    lines = UNIT.read_text().splitlines()
    return [word for line in lines if line.startswith("Environment=") for word in line[len("Environment="):].split()]


class Gateway:
    """A configured gateway; its folder has everything of it."""

    def __init__(self, children: Children, folder: Path, binary: Path, vehicles: int, kafka: int, mqtt: int):
        self.children, self.folder, self.binary = children, folder, binary
        self.port, self.admin, self.zmq = free_port(), free_port(), free_port()
        self.upstream = {"kafka": kafka, "mqtt": mqtt}
        self.log = children.logs / "waystation.log"
        self.process = None
        self.serial = 0
        self.version = children.run("waystation", [binary, "--version"]).strip()
        children.run("waystation pki", [binary, "pki", "--out", folder / "pki", "--vehicles", vehicles])
        (folder / "tls").mkdir()
        authority = ["openssl", "req", "-x509", *_KEY, "-subj", "/CN=soak CA", "-days", "30"]
        children.run("openssl", [*authority, "-keyout", folder / "ca.key", "-out", folder / "pki/server-ca.pem"])
        self.renew_certificate()
        self.configure()

    def configure(self, commit_delay: str = "50ms", pause: bool = False):
        """Writes the configuration with these values."""
        ports = {"port": self.port, "admin": self.admin, "zmq": self.zmq, **self.upstream}
        names = {"namespace": NAMESPACE, "topic_base": TOPIC_BASE}
        text = CONFIG.format(commit_delay=commit_delay, pause=str(pause).lower(), **ports, **names)
        (self.folder / "config.toml").write_text(text)

    def renew_certificate(self):
        """Puts a certificate with the next serial number and its new key where the configuration has them."""
        self.serial += 1
        key, certificate = self.folder / "next.key", self.folder / "next.pem"
        command = [
            "openssl",
            "req",
            "-x509",
            *_KEY,
            "-subj",
            "/CN=localhost",
            "-days",
            "30",
            "-set_serial",
            self.serial,
        ]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-CA", self.folder / "pki/server-ca.pem", "-CAkey", self.folder / "ca.key"]
        self.children.run("openssl", [*command, "-keyout", key, "-out", certificate])
        with open(certificate, "a") as chain:
            chain.write((self.folder / "pki/server-ca.pem").read_text())
        key.rename(self.folder / "tls/server.key")
        certificate.rename(self.folder / "tls/server.pem")

    def vehicles(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "pki/vehicles").glob("*.pem"))

    def vehicle_folder(self, name: str, vins: list[str]) -> Path:
        """A PKI with these vehicles alone, for a fleet of its own."""
        folder = self.folder / name
        (folder / "vehicles").mkdir(parents=True)
        shutil.copy(self.folder / "pki/server-ca.pem", folder)
        for vin in vins:
            for ending in ("pem", "key"):
                shutil.copy(self.folder / f"pki/vehicles/{vin}.{ending}", folder / "vehicles")
        return folder

    def start(self):
        command = ["env", *unit_environment(), self.binary, "run", "--config", self.folder / "config.toml"]
        self.process = self.children.start("waystation", command)
        wait_for(f"the gateway is ready; see {self.log}", 60, lambda: self.is_alive() and self.get("/status"))

    def is_alive(self) -> bool:
        """Whether it runs; it is never started again, so that its end is a finding."""
        if self.process.poll() is not None:
            raise SoakError(f"the gateway ended with {self.process.returncode}:\n{tail(self.log)}")
        return True

    def get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def status(self) -> dict:
        body = self.get("/status.json")
        if body is None:
            self.is_alive()
            raise SoakError("the gateway does not answer /status.json within 10 s")
        report = json.loads(body)
        report["destinations"] = {one["name"]: one for one in report["destinations"]}
        return report

    def reload(self):
        """SIGHUP, which has to be taken over whole."""
        before = self.log.stat().st_size
        self.process.send_signal(signal.SIGHUP)

        def answer():
            with open(self.log, errors="replace") as file:
                file.seek(before)
                return [line for line in file if "reloaded" in line]

        said = wait_for("the gateway says what became of a reload", 20, answer)[0].strip()
        if not re.search(r"INFO.* configuration reloaded$", _plain(said)):
            raise SoakError(f"a reload was not taken over whole: {said}")

    def served_serial(self) -> int:
        """The serial number of the certificate that vehicles are shown."""
        context = ssl.create_default_context(cafile=self.folder / "pki/server-ca.pem")
        with socket.create_connection(("127.0.0.1", self.port), 10) as stream:
            with context.wrap_socket(stream, server_hostname="localhost") as tls:
                return int(tls.getpeercert()["serialNumber"], 16)

    def errors(self) -> list[str]:
        """What it logged as an error."""
        with open(self.log, errors="replace") as file:
            return [line.strip() for line in map(_plain, file) if re.match(r"\S+ +ERROR ", line)]


_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)
