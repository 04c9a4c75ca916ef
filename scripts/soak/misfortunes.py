"""What happens to the gateway and around it, and when: rounds of the same misfortunes, as long as the soak allows.

A misfortune begins and ends at parts of its round. Steps come one after the other, so one that takes long (a Kafka that
starts) puts off those behind it, in its round and if need be beyond; none is left out or cut short. The timeline has
the times at which things really happened.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .processes import SoakError, wait_for

# The part of the soak at its end in which nothing happens any more.
CALM = 0.1


@dataclass
class Misfortune:
    """One kind of it; without `end` it takes no time."""

    kind: str
    at: float
    begin: Callable[[], None]
    until: float | None = None
    end: Callable[[], None] | None = None


@dataclass
class Timeline:
    """What happened, in seconds since the start."""

    started: float
    # When each round began, and when the vehicles were asked to stop.
    rounds: list[float] = field(default_factory=list)
    stopped: float | None = None
    happened: list[dict] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.started

    def begins(self, kind: str):
        self.happened.append({"kind": kind, "from": self.now(), "to": None})

    def ends(self, kind: str):
        one = next(one for one in reversed(self.happened) if one["kind"] == kind)
        one["to"] = self.now()


def rounds(minutes: float) -> int:
    """One for each six minutes; two in all but the shortest soaks, so that the first can be the warm-up."""
    return max(1 if minutes < 4 else 2, round(minutes / 6))


def round_length(minutes: float) -> float:
    """In seconds."""
    return minutes * 60 * (1 - CALM) / rounds(minutes)


def steps(misfortunes: list[Misfortune], minutes: float):
    """(second, round, whether it begins, misfortune) of all rounds, in the order of their time."""
    length = round_length(minutes)
    planned = []
    for number in range(rounds(minutes)):
        for one in misfortunes:
            planned.append(((number + one.at) * length, number, True, one))
            if one.end:
                planned.append(((number + one.until) * length, number, False, one))
    return sorted(planned, key=lambda step: step[0])


def play(timeline: Timeline, misfortunes: list[Misfortune], minutes: float, watch: Callable[[], None], say):
    """All rounds, then the calm. `watch` is asked all the time, and raises what makes the soak senseless."""

    def wait_until(second: float):
        while (left := second - timeline.now()) > 0:
            watch()
            time.sleep(min(left, 0.2))

    late = 0.0
    for second, number, begins, one in steps(misfortunes, minutes):
        if number == len(timeline.rounds):
            late = max(0.0, timeline.now() - second)
            timeline.rounds.append(number * round_length(minutes) + late)
        wait_until(second + late)
        if begins:
            say(f"{one.kind}" + ("" if one.end else ", done"))
            timeline.begins(one.kind)
            one.begin()
        else:
            one.end()
            say(f"{one.kind}: over")
        if not (begins and one.end):
            timeline.ends(one.kind)
        late = max(late, timeline.now() - second)
    wait_until(max(minutes * 60, timeline.now() + minutes * 60 * CALM / 2))
    timeline.stopped = timeline.now()


def all_of(gateway, mosquitto, kafka, restless, subscriber, slow_subscriber) -> list[Misfortune]:
    """A round. `subscriber` is the one that is stopped."""

    def destination(name: str) -> dict:
        return gateway.status()["destinations"][name]

    def flows(name: str) -> Callable[[], bool]:
        """Something more is confirmed than now."""
        before = destination(name)["confirmed"]
        return lambda: gateway.is_alive() and destination(name)["confirmed"] > before

    def renew_certificate():
        connected = gateway.status()["listener"]["connections"]
        gateway.renew_certificate()
        gateway.reload()
        wait_for("the renewed certificate is served", 10, lambda: gateway.served_serial() == gateway.serial)
        if gateway.status()["listener"]["connections"] < connected:
            raise SoakError("a reload dropped connections")

    def change_configuration():
        gateway.configure(commit_delay="20ms", pause=True)
        gateway.reload()
        wait_for("Kafka is held by the changed configuration", 20, lambda: destination("cloud")["held"])

    def change_it_back():
        gateway.configure()
        again = flows("cloud")
        gateway.reload()
        wait_for("Kafka is sent records again", 60, again)

    def start_mosquitto():
        mosquitto.start()
        wait_for("mosquitto is sent records again", 60, flows("home"))

    def start_kafka():
        kafka.start()
        wait_for("Kafka is sent records again", 120, flows("cloud"))

    return [
        Misfortune(
            "mosquitto killed",
            0.05,
            lambda: mosquitto.kill(lambda: destination("home")["cursor"]),
            0.14,
            start_mosquitto,
        ),
        Misfortune("certificate renewed", 0.17, renew_certificate),
        Misfortune("Kafka killed", 0.20, kafka.kill, 0.32, start_kafka),
        Misfortune("configuration changed", 0.42, change_configuration, 0.49, change_it_back),
        Misfortune("mosquitto stopped", 0.54, mosquitto.stop, 0.62, mosquitto.resume),
        Misfortune("Kafka stopped", 0.68, kafka.stop, 0.78, kafka.resume),
        Misfortune("vehicles killed", 0.84, restless.kill, 0.88, restless.start),
        Misfortune("ZMQ consumer slow", 0.10, slow_subscriber.start, 0.40, slow_subscriber.end),
        Misfortune("ZMQ consumer stopped", 0.46, subscriber.stop, 0.92, subscriber.resume),
    ]
