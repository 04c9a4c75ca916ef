"""One vehicle that shares no code with the gateway and says how long each ack took.

Usage: probe.py PORT PKI VIN RATE

PKI holds server-ca.pem and vehicles/VIN.pem and .key. Prints a line for each ack: transaction id and milliseconds.
After a lost connection it sends what was not acknowledged again, in order, as vehicles do. With SIGINT it makes no more
records, waits for the last acks and ends. Run it with the Python of the tests' environment, and with `tests/foreign`
in PYTHONPATH.
"""

import signal
import ssl
import sys
import threading
import time
from collections import OrderedDict

from vehicle import answer, envelope, payload
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TOPICS = ("V",) * 8 + ("alerts", "errors")
LAST_ACKS = 60


class Probe:
    def __init__(self, port: int, pki: str, vin: str, rate: float):
        self.vin, self.rate = vin, rate
        self.url = f"wss://localhost:{port}/"
        self.tls = ssl.create_default_context(cafile=f"{pki}/server-ca.pem")
        self.tls.load_cert_chain(f"{pki}/vehicles/{vin}.pem", f"{pki}/vehicles/{vin}.key")
        self.stop = threading.Event()
        self.made = 0
        self.lock = threading.Lock()
        # Message and when it was first sent, by transaction id.
        self.open: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def drive(self):
        self.started = time.monotonic()
        deadline = None
        while not self.stop.is_set() or self.open:
            if self.stop.is_set():
                deadline = deadline or time.monotonic() + LAST_ACKS
                if time.monotonic() > deadline:
                    sys.exit(f"{len(self.open)} records were not acknowledged within {LAST_ACKS} s")
            try:
                with connect(self.url, ssl=self.tls, max_size=None, proxy=None, compression=None) as socket:
                    self.talk(socket)
            except (ConnectionClosed, OSError, TimeoutError) as error:
                print(f"connection: {error}", file=sys.stderr, flush=True)
                time.sleep(0.2)

    def talk(self, socket):
        with self.lock:
            waiting = [message for message, _ in self.open.values()]
        for message in waiting:
            socket.send(message)
        hearing = threading.Thread(target=self.hear, args=(socket,), daemon=True)
        hearing.start()
        while not self.stop.is_set() and hearing.is_alive():
            due = self.started + self.made / self.rate
            if (early := due - time.monotonic()) > 0:
                self.stop.wait(early)
                continue
            socket.send(self.make())
        deadline = time.monotonic() + LAST_ACKS
        while self.open and hearing.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    def make(self) -> bytes:
        topic = TOPICS[self.made % len(TOPICS)]
        txid = f"{self.vin}-{self.made}"
        sender = b"vehicle_device." + self.vin.encode()
        message = envelope(txid.encode(), topic.encode(), sender, payload(topic, self.made % 100))
        with self.lock:
            self.open[txid] = (message, time.monotonic())
        self.made += 1
        return message

    def hear(self, socket):
        try:
            while True:
                kind, txid, _ = answer(socket.recv())
                now = time.monotonic()
                with self.lock:
                    known = self.open.pop(txid, None)
                if kind == "ack" and known:
                    print(f"{txid}\t{(now - known[1]) * 1000:.3f}", flush=True)
                elif kind != "ack":
                    print(f"{txid} was answered with an error", file=sys.stderr, flush=True)
        except ConnectionClosed:
            return


if __name__ == "__main__":
    probe = Probe(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
    signal.signal(signal.SIGINT, lambda *_: probe.stop.set())
    probe.drive()
