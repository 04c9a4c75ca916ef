"""What the gateway uses and does, every few seconds, from outside: /proc, the queue's folder, its status, the probe."""

import math
import os
import threading
import time
from pathlib import Path

COLUMNS = {
    "seconds": "since the vehicles started",
    "rss": "resident memory, bytes",
    "anonymous": "of these not from files, bytes",
    "descriptors": "open descriptors",
    "threads": "threads",
    "disk": "blocks in use below the queue's folder, bytes",
    "backlog_kafka": "records that Kafka has not confirmed",
    "backlog_mqtt": "records that mosquitto has not confirmed",
    "in_flight": "records handed to Kafka's client and not confirmed",
    "connections": "vehicles connected",
    "acks": "acks a second, over the interval",
    "kafka": "records a second that Kafka confirmed",
    "mqtt": "records a second that mosquitto confirmed",
    "ack_p50": "milliseconds to the ack, of the probe's records in the interval",
    "ack_p99": "the same for 99 of 100",
}


def process(pid: int) -> dict:
    status = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        status[name] = value.split()
    return {
        "rss": int(status["VmRSS"][0]) << 10,
        "anonymous": int(status["RssAnon"][0]) << 10,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"][0]),
    }


def blocks(folder: Path) -> int:
    """Bytes of the blocks that a folder's files use, whatever their length says."""
    used = 0
    for path in [folder, *folder.rglob("*")]:
        try:
            used += path.lstat().st_blocks * 512
        except FileNotFoundError:
            pass
    return used


def percentile(values: list[float], part: float) -> float | None:
    """The value that this part of all is not above. `None`: there are none."""
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)] if values else None


class Sampler:
    """Takes samples in a thread of its own until it is stopped; `failure` is why it could not go on."""

    def __init__(self, gateway, probe, timeline, interval: float):
        self.gateway, self.probe, self.timeline, self.interval = gateway, probe, timeline, interval
        self.rows: list[dict] = []
        self.latencies: list[float] = []
        self.failure: Exception | None = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.before = self._counters()
        self.thread.start()

    def stop(self):
        self.stopped.set()
        self.thread.join()

    def _run(self):
        due = time.monotonic()
        try:
            while True:
                due = max(due + self.interval, time.monotonic())
                if self.stopped.wait(due - time.monotonic()):
                    return
                self.rows.append(self._sample())
        except Exception as failure:
            self.failure = failure

    def _counters(self) -> dict:
        status = self.gateway.status()
        cloud, home = status["destinations"]["cloud"], status["destinations"]["home"]
        return {
            "at": self.timeline.now(),
            "acks": status["listener"]["acked"],
            "kafka": cloud["confirmed"],
            "mqtt": home["confirmed"],
            "gauges": {
                "backlog_kafka": cloud["backlog"],
                "backlog_mqtt": home["backlog"],
                "in_flight": cloud["in_flight"],
                "connections": status["listener"]["connections"],
            },
        }

    def _sample(self) -> dict:
        before, now = self.before, self._counters()
        self.before = now
        took = now["at"] - before["at"]
        latencies = self.probe.take()
        self.latencies += latencies
        row = {"seconds": now["at"], **process(self.gateway.process.pid)}
        row |= {"disk": blocks(self.gateway.folder / "queue"), **now["gauges"]}
        row |= {name: (now[name] - before[name]) / took for name in ("acks", "kafka", "mqtt")}
        row |= {"ack_p50": percentile(latencies, 0.5), "ack_p99": percentile(latencies, 0.99)}
        return {name: row[name] for name in COLUMNS}
