"""Who talks to the gateway: fleets of simulated vehicles, the probe, and ZMQ subscribers.

What was acknowledged is in files, a transaction id in each line, written as the acks come: a killed fleet goes on
behind its own, and the account is drawn from them.
"""

import json
import signal
import threading
from pathlib import Path

from .gateway import Gateway
from .processes import Children, SoakError, tail, wait_for

HERE = Path(__file__).resolve().parent
LAST_ACKS = 120


class Fleet:
    """Vehicles in one process of `waystation simulate`."""

    def __init__(self, children: Children, gateway: Gateway, name: str, vins: list[str], rate: float):
        self.children, self.name, self.vins = children, name, vins
        self.acks = gateway.folder / f"{name}.acks"
        self.acks.touch()
        self.command = [gateway.binary, "simulate", "--pki", gateway.vehicle_folder(name, vins)]
        self.command += ["--connect", f"localhost:{gateway.port}", "--vehicles", len(vins), "--rate", rate]
        self.command += ["--linger", f"{LAST_ACKS}s", "--remember", self.acks, "--json"]
        self.process = None
        self.said: list[str] = []

    def start(self, records: int | None = None):
        """Until it is asked to end, or for so many records of each vehicle."""
        self.said.clear()
        more = ["--records", records] if records else []
        self.process = self.children.start(self.name, [*self.command, *more], self.said.append)

    def kill(self):
        self.children.end(self.process)

    def ask_to_end(self):
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> dict:
        """Its tally, once it has its last acks; without all of them it is a failure."""
        code = self.children.end(self.process, 0, within=LAST_ACKS + 30)
        if code != 0 or not self.said:
            log = tail(self.children.logs / f"{self.name}.log")
            raise SoakError(f"{self.name} ended with {code}, and said {self.said[-1:]}:\n{log}")
        return json.loads(self.said[-1])


class Probe:
    """The vehicle that measures acks, and what it measured since it was last asked."""

    def __init__(self, children: Children, gateway: Gateway, python: Path, vin: str, rate: float):
        self.children, self.vins = children, [vin]
        self.acks = gateway.folder / "probe.acks"
        self.output = open(self.acks, "w", buffering=1)
        foreign = HERE.parents[1] / "tests/foreign"
        self.command = ["env", f"PYTHONPATH={foreign}", python, HERE / "probe.py", gateway.port]
        self.command += [gateway.vehicle_folder("probe", [vin]), vin, rate]
        self.lock = threading.Lock()
        self.latencies: list[float] = []
        self.process = None

    def start(self):
        self.process = self.children.start("probe", self.command, self._take)
        wait_for("the probe has its first ack; see probe.log", 30, lambda: self.latencies)

    def _take(self, line: str):
        txid, ms = line.split("\t")
        self.output.write(txid + "\n")
        with self.lock:
            self.latencies.append(float(ms))

    def take(self) -> list[float]:
        """Milliseconds to each ack since the last call."""
        with self.lock:
            taken, self.latencies = self.latencies, []
        return taken

    def ask_to_end(self):
        self.process.send_signal(signal.SIGINT)

    def ended(self):
        if self.children.end(self.process, 0, within=LAST_ACKS + 30) != 0:
            raise SoakError(f"the probe failed:\n{tail(self.children.logs / 'probe.log')}")


class Subscriber:
    """A ZMQ subscriber; with `rest` it takes that many seconds for each message."""

    def __init__(self, children: Children, gateway: Gateway, python: Path, name: str, rest: float = 0):
        self.children, self.name = children, name
        self.command = [python, HERE / "subscriber.py", f"tcp://127.0.0.1:{gateway.zmq}", rest]
        self.process = None
        self.received = self.behind = 0

    def start(self):
        connected = threading.Event()

        def take(line: str):
            if line == "connected":
                connected.set()
            else:
                self.received, self.behind, _ = map(int, line.split("\t"))

        self.process = self.children.start(self.name, self.command, take)
        wait_for(f"{self.name} has its socket; see {self.name}.log", 30, connected.is_set)

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.children.end(self.process)
