"""The soak from beginning to end: parts up, vehicles on, misfortunes, vehicles off, drained, held against what arrived.

Usage: scripts/soak.sh, which says what the options mean. Exit code 0: nothing is lost and nothing grows. 1: something
is or does, or the soak could not be brought to its end.
"""

import argparse
import datetime
import math
import shutil
import signal
import sys
from pathlib import Path

from . import account, chart, misfortunes, report, samples, state, verdict
from .brokers import Kafka, Mosquitto
from .clients import Fleet, Probe, Subscriber
from .gateway import Gateway
from .misfortunes import Timeline
from .processes import Children, SoakError, wait_for

# Vehicles that are killed and start again; one of this many.
RESTLESS = 5
PROBE_RATE = 20
# Seconds that a slow ZMQ consumer takes for each message.
SLOW = 0.05
DRAIN = 300


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak.sh")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--vehicles", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--kafka", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    if not 2 <= given.minutes < math.inf:
        parser.error("--minutes: at least 2, or there is nothing to lay a line through")
    if given.vehicles < 2:
        parser.error("--vehicles: at least 2, one to be left alone and one to be killed")
    if not 0 < given.rate <= 50:
        parser.error("--rate: more than 0 and at most 50 records a second")
    return given


def soak(given: argparse.Namespace, children: Children, folder: Path, say) -> dict:
    """Runs it, and returns all that `soak.json` has."""
    say("starting Kafka, mosquitto and the gateway")
    mosquitto = Mosquitto(children, folder)
    kafka = Kafka(children, folder, given.kafka)
    kafka.start()
    kafka.create_topics()
    mosquitto.start()
    gateway = Gateway(children, folder, given.binary, given.vehicles + 1, kafka.port, mosquitto.gate.port)
    gateway.start()

    vins = gateway.vehicles()
    few = max(1, given.vehicles // RESTLESS)
    probe = Probe(children, gateway, given.python, vins[-1], PROBE_RATE)
    restless = Fleet(children, gateway, "restless", vins[:few], given.rate)
    steady = Fleet(children, gateway, "steady", vins[few:-1], given.rate)
    fast = Subscriber(children, gateway, given.python, "zmq-fast")
    stopped = Subscriber(children, gateway, given.python, "zmq-stopped")
    slow = Subscriber(children, gateway, given.python, "zmq-slow", SLOW)
    for subscriber in (fast, stopped):
        subscriber.start()
    # Before a first record no connection to Kafka is open.
    steady.start(records=1)
    steady.ended()
    wait_for("the first records are delivered", 60, lambda: is_drained(gateway))
    base = samples.process(gateway.process.pid) | {"disk": samples.blocks(folder / "queue")}

    timeline = Timeline(misfortunes.time.monotonic())
    sampler = samples.Sampler(gateway, probe, timeline, min(5, max(2, given.minutes * 60 / 240)))

    def watch():
        gateway.is_alive()
        if sampler.failure:
            raise SoakError(f"no samples any more: {sampler.failure}")

    rounds = misfortunes.rounds(given.minutes)
    say(f"{given.vehicles} vehicles drive for {given.minutes:g} min, through {rounds} rounds of misfortunes")
    sampler.start()
    for vehicles in (probe, steady, restless):
        vehicles.start()
    plan = misfortunes.all_of(gateway, mosquitto, kafka, restless, stopped, slow)
    misfortunes.play(timeline, plan, given.minutes, watch, lambda what: say(f"[{timeline.now():.0f} s] {what}"))

    say("the vehicles stop, the queue drains")
    for vehicles in (probe, steady, restless):
        vehicles.ask_to_end()
    probe.ended()
    restless.ended()
    tally = steady.ended()
    after = drained(gateway, folder, base)
    sampler.stop()
    watch()

    say("reading back what arrived")
    acks = account.acknowledged(vehicles.acks for vehicles in (probe, steady, restless))
    accounts = {
        "Kafka": account.settle(acks, kafka.arrivals()),
        "mosquitto": account.settle(acks, mosquitto.arrivals()),
    }
    lines = verdict.growths(sampler.rows, timeline)
    checks = [verdict.of_account(name, one) for name, one in accounts.items()]
    checks += [verdict.of_growth(name, line) for name, line in lines.items()]
    checks.append(verdict.of_disk(base["disk"], after["disk"], max(row["disk"] for row in sampler.rows)))
    checks.append(verdict.of_round_ends(verdict.round_ends(sampler.rows, timeline)))
    checks.append(verdict.of_idle(base, after))
    checks.append(verdict.of_connections(tally, len(steady.vins) * given.rate * timeline.stopped))
    acknowledged = min(one.acknowledged for one in accounts.values())
    checks.append(verdict.of_live_feed(fast.received, fast.behind, acknowledged))
    checks.append(verdict.of_counters(gateway.status(), gateway.errors()))
    return {
        "date": datetime.date.today().isoformat(),
        "version": gateway.version,
        "settings": {name: getattr(given, name) for name in ("minutes", "vehicles", "rate")},
        "warm_up": verdict.warm_up(timeline),
        "stopped": timeline.stopped,
        "checks": [vars(check) for check in checks],
        "accounts": {name: one.as_dict() for name, one in accounts.items()},
        "growth": {name: line.as_dict() for name, line in lines.items()},
        "idle": {"before": base, "after": after},
        "acks": report.acks(sampler.latencies),
        "zmq": {"received": fast.received, "out_of_order": fast.behind},
        "timeline": timeline.happened,
        "columns": samples.COLUMNS,
        "samples": sampler.rows,
    }


def is_drained(gateway: Gateway) -> bool:
    """Whether everything is delivered and no vehicle is connected."""
    status = gateway.status()
    waiting = [one["backlog"] for one in status["destinations"].values()]
    return not any(waiting) and not status["listener"]["connections"]


def drained(gateway: Gateway, folder: Path, base: dict) -> dict:
    """Waits for an empty backlog, and then for what is given back a moment later, which the verdict judges."""

    def now() -> dict:
        return samples.process(gateway.process.pid) | {"disk": samples.blocks(folder / "queue")}

    def settled() -> bool:
        after = now()
        return verdict.of_disk(base["disk"], after["disk"], 0).holds and verdict.of_idle(base, after).holds

    wait_for("everything is delivered and no vehicle is connected", DRAIN, lambda: is_drained(gateway), every=0.5)
    try:
        wait_for("disk, descriptors and threads are as before", 60, settled, every=0.5)
    except SoakError:
        pass
    return now()


def main() -> int:
    given = options()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        folder = state.made(given.out)
    except OSError as error:
        print(f"soak.sh: {error}", file=sys.stderr)
        return 1
    logs = folder / "logs"
    logs.mkdir()

    def say(words: str):
        print(words, file=sys.stderr, flush=True)

    try:
        with Children(logs) as children:
            result = soak(given, children, folder, say)
    except SoakError as error:
        say(f"soak.sh: FAILED: {error}\nsoak.sh: everything's log is in {logs}")
        return 1
    except KeyboardInterrupt:
        return 130
    report.write(given.out, result)
    (given.out / "soak.svg").write_text(chart.draw(result))
    if given.docs:
        report.into_docs(given.docs, given.out, result)
    checks = [verdict.Check(**check) for check in result["checks"]]
    print(verdict.words(checks))
    say(f"soak.json, soak.csv and soak.svg are in {given.out}")
    if all(check.holds for check in checks):
        # Gigabytes, after an hour.
        shutil.rmtree(folder)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
