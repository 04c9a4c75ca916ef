"""What has to hold at the end, each with what was found: nothing lost, nothing grown, everything given back."""

from dataclasses import dataclass

from .account import Account
from .gateway import SEGMENT_BYTES
from .growth import Growth, growth
from .misfortunes import Timeline

MIB = 1 << 20
# What may be noise, of each column: see `growth`. Memory settles for a while, ever more slowly, so that a short soak
# can only find what leaks fast. Acks at this load wait for the commit: half of `commit_delay` of 50 ms, or all of it while
# the probe's rhythm and the commits' fall together. Such a step in the middle lets a line rise by half as much again.
FLOORS = {"rss": 8 * MIB, "descriptors": 4, "threads": 2, "ack_p50": 40}
SETTLING, RSS_WHILE_SETTLING = 1800, 16 * MIB
# What may stay when the vehicles are gone: the segment that is written next, and room for one that is not yet deleted.
DISK_ALLOWANCE = 2 * SEGMENT_BYTES
# The part of a round at its end in which everything flows again.
END = 0.1
# Share of what there should have been below which something stood still: vehicles, or the live feed.
LEAST = 0.9
# Of what the gateway counts, what has to stay 0.
NEVER = {
    "queue": ("refused", "lost"),
    "listener": ("not_acked", "turned_away", "unreadable", "connectivity_dropped", "handshake_errors"),
    "destination": ("refused", "dropped"),
}


@dataclass(frozen=True)
class Check:
    """One sentence of the verdict."""

    name: str
    holds: bool
    found: str


def warm_up(timeline: Timeline) -> float:
    """Seconds at the start that no line goes through: a quarter of the rounds and at least one; a third of the only."""
    rounds = timeline.rounds
    return rounds[max(1, len(rounds) // 4)] if len(rounds) > 1 else timeline.stopped / 3


def growths(rows: list[dict], timeline: Timeline) -> dict[str, Growth]:
    """A line through each column that must not grow, from the warm-up until the vehicles stop."""
    fitted = [row for row in rows if warm_up(timeline) <= row["seconds"] <= timeline.stopped]
    floors = FLOORS | ({"rss": RSS_WHILE_SETTLING} if timeline.stopped < SETTLING else {})
    # An interval without acks has no latency.
    points = {name: [(row["seconds"], row[name]) for row in fitted if row[name] is not None] for name in floors}
    return {name: growth(points[name], floor) for name, floor in floors.items()}


def round_ends(rows: list[dict], timeline: Timeline) -> list[tuple[float, float]]:
    """Seconds, and the least that the queue used on the disk at the end of each round."""
    ends = []
    for begins, stops in zip(timeline.rounds, [*timeline.rounds[1:], timeline.stopped], strict=True):
        last = [row["disk"] for row in rows if stops - END * (stops - begins) <= row["seconds"] <= stops]
        if last:
            ends.append((stops, min(last)))
    return ends


def of_account(destination: str, account: Account) -> Check:
    found = f"{account.acknowledged:,} acknowledged, {account.lost:,} lost, {account.out_of_order:,} out of order, "
    found += f"{account.copies:,} twice"
    if account.examples:
        found += f" ({'; '.join(account.examples)})"
    return Check(f"everything at {destination}", account.is_sound(), found)


def of_growth(name: str, line: Growth) -> Check:
    unit, scale = {"rss": (" MiB", MIB), "ack_p50": (" ms", 1)}.get(name, ("", 1))

    def value(number: float, sign: str = "") -> str:
        return f"{number / scale:{sign},.1f}"

    found = (
        f"{value(line.typical)}{unit}, {value(line.rise, '+')} ±{value(2 * line.error)} in {line.span / 60:.1f} min, "
    )
    found += f"{value(line.per_day, '+')}{unit} a day by the line; "
    found += f"grows above {value(line.floor, '+')}{unit} ({value(line.floor_per_day, '+')} a day)"
    return Check({"rss": "RSS", "ack_p50": "ack latency p50"}.get(name, name), not line.grows(), found)


def of_disk(base: int, after: int, most: int) -> Check:
    found = f"{base / MIB:.1f} MiB before, {most / MIB:.1f} at most, {after / MIB:.1f} drained; "
    found += f"{DISK_ALLOWANCE / MIB:.0f} MiB may stay"
    return Check("disk given back", after <= base + DISK_ALLOWANCE, found)


def of_round_ends(ends: list[tuple[float, float]]) -> Check:
    """A queue that keeps a little after each outage is found while the soak runs, though it gives all back when it has drained."""
    rise, grows = 0.0, False
    if len(ends) > 2:
        line = growth(ends, DISK_ALLOWANCE)
        rise, grows = line.rise, line.grows()
    elif len(ends) == 2:
        rise = ends[1][1] - ends[0][1]
        grows = rise > DISK_ALLOWANCE
    found = ", ".join(f"{disk / MIB:.1f}" for _, disk in ends) + " MiB at the ends of the rounds, "
    found += f"{rise / MIB:+.1f} from the first to the last; grows above {DISK_ALLOWANCE / MIB:+.0f}"
    return Check("disk from round to round", not grows, found)


def of_idle(before: dict, after: dict) -> Check:
    """What is open without vehicles, before the first and after the last."""
    names = ("descriptors", "threads")
    found = ", ".join(f"{name} {before[name]} before, {after[name]} after" for name in names)
    return Check("idle as before", all(after[name] <= before[name] + FLOORS[name] for name in names), found)


def of_connections(tally: dict, expected: float) -> Check:
    """Vehicles that nobody kills connect once: no reload and no outage is theirs to notice. `expected`: records that
    they would make if nothing held them up."""
    found = f"{tally['connections']} of {tally['vehicles']} vehicles that were left alone, "
    found += f"{tally['resent']} records resent, {tally['acked']:,} acknowledged of about {expected:,.0f}"
    stayed = tally["connections"] == tally["vehicles"] and not tally["resent"]
    drove = tally["acked"] >= LEAST * expected and not tally["refused"]
    return Check("connections stayed", stayed and drove, found)


def of_live_feed(received: int, behind: int, acknowledged: int) -> Check:
    """ZMQ promises no more than what comes, in order; the subscriber that reads at once is not to notice the others."""
    found = f"{received:,} records at the subscriber that reads at once, {behind:,} behind a later one"
    return Check("ZMQ in order", received >= LEAST * acknowledged and behind == 0, found)


def of_counters(status: dict, errors: list[str]) -> Check:
    """What the gateway itself counts and logs."""
    parts = [("queue", status["queue"]), ("listener", status["listener"])]
    parts += [(name, one) for name, one in status["destinations"].items()]
    wrong = []
    for part, counters in parts:
        for name in NEVER.get(part, NEVER["destination"]):
            if counters[name]:
                wrong.append(f"{part} {name}: {counters[name]}")
    if status["reload_error"]:
        wrong.append(f"reload: {status['reload_error']}")
    wrong += errors[:3]
    return Check(
        "the gateway's own word", not wrong, "; ".join(wrong) or "no record refused, dropped or lost; no error"
    )


def words(checks: list[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines = [f"{'ok    ' if check.holds else 'FAILED'} {check.name:<{width}}  {check.found}" for check in checks]
    good = all(check.holds for check in checks)
    return "\n".join([*lines, "verdict: nothing lost, nothing grows" if good else "verdict: FAILED"])
