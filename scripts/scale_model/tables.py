"""The tables that docs/scale.md quotes, each by the name of its markers there, as Markdown."""

import random

from . import dedup, fleet, herd, inputs, pace, stored, wire

GB = 1e9
DAY = 86_400
TYPES = 2  # record types that a vehicle sends often: V and connectivity


def number(value, digits=3):
    """As a person writes it: so many digits that count, with commas; whole numbers as they are."""
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{round(value):,}"
    text = f"{value:.{digits}g}"
    return f"{value:.2f}" if "e" in text else text


def rough(value):
    """Large values with a unit."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return number(value)


def size(value):
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= of:
            return f"{number(value / of)} {unit}"
    return f"{number(value)} B"


def time(seconds):
    if seconds is None:
        return "not in 20 min"
    for unit, of in (("days", 2 * DAY), ("h", 7_200), ("min", 120)):
        if seconds >= of:
            return f"{number(seconds / {'days': DAY, 'h': 3_600, 'min': 60}[unit], 2)} {unit}"
    return f"{number(seconds, 2)} s"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] + ["---:"] * (len(head) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def of_inputs(box, found, _quick):
    units = {"cost": "µs a record", "idle": "MB", "thousand": "MB", "drain": "records/s"}
    rows = []
    for name, (_, figure, _) in inputs.MEASURED.items():
        source = "target/gateway.json" if name in found else "constant in scripts/scale_model/inputs.py"
        rows.append((figure, f"{number(box[name])} {units[name]}", source))
    return table(("input", "value", "from"), rows)


def of_disk(_box, _found, _quick):
    frame = stored.frame()
    rows = []
    for records in (1, 2, 5, 6, 10, 23, 32, 92, 1_000):
        used = stored.commit(records, frame) / records
        rows.append((number(records), number(used), f"{used / inputs.PAYLOAD:.2f}"))
    return table(("records that go together", "bytes on the disk a record", "for a byte of payload"), rows)


RATES = (1 / 60, 0.1, 1.0, 10.0)


def of_days(_box, _found, _quick):
    rows = []
    for vehicles in (1, 10, 100, 1_000):
        cells = []
        for rate in RATES:
            day = vehicles * rate * stored.per_record(vehicles * rate) * DAY
            cells.append(f"{number(GB / day, 2)} / {number(inputs.MAX_BYTES / day, 2)}")
        rows.append((number(vehicles), *cells))
    return table(("vehicles", "1 a minute", "0.1/s", "1/s", "10/s"), rows)


def of_box(box, _found, _quick):
    each = (box["thousand"] - box["idle"]) / 1_000
    rows = []
    for vehicles in (10, 100, 1_000, 10_000):
        rate = vehicles * 1.0
        rows.append(
            (
                number(vehicles),
                f"{rate * box['cost'] * 1e-6:.2%}",
                f"{number(box['idle'] + vehicles * each, 2)} MB",
                number(stored.commit_size(rate), 2),
                size(rate * stored.per_record(rate) * DAY),
                time(inputs.DUPLICATES_KNOWN / rate),
                size(rate * wire.per_record(1) * 1.0) + "/s",
            )
        )
    head = ("vehicles, 1 record/s each", "of one core, at most", "memory", "records a commit", "disk a day of outage")
    return table((*head, "known as duplicates for", "uplink while keeping up"), rows)


def of_backlog(box, _found, _quick):
    up = inputs.UPLINK / wire.per_record(pace.batch(None, 10))
    rows = []
    for vehicles in (10, 100, 1_000):
        for hours in (4, 7 * 24):
            rate, outage = vehicles * 1.0, hours * 3_600
            used = rate * stored.per_record(rate) * outage
            rows.append(
                (
                    f"{number(vehicles)}, {time(outage)}",
                    rough(rate * outage),
                    size(used),
                    time(herd.drain_time(outage, rate, box["drain"])),
                    time(herd.drain_time(outage, rate, up)),
                )
            )
    return table(("vehicles, outage", "records", "disk", "drained, as measured", "over 10 Mbit/s"), rows)


def of_partitions(_box, _found, quick):
    rows = []
    for vehicles in (1_000, 10_000, 100_000 if quick else 1_000_000):
        for partitions in (12, 100, 1_000):
            measured, empty = fleet.skew(vehicles, partitions)
            rng = random.Random(1)
            driving, _ = fleet.skew(vehicles, partitions, lambda _: 1.0 if rng.random() < 0.1 else 1 / 60)
            ideal = fleet.even_keys(vehicles, partitions)
            name = f"{number(vehicles)}, {number(partitions)}"
            rows.append((name, f"{measured:.2f}", f"{driving:.2f}", f"{ideal:.2f}", empty))
    head = ("vehicles, partitions", "busiest by mean", "a tenth drives", "a perfect hash, about")
    return table((*head, "partitions without a key"), rows)


def of_requests(_box, _found, quick):
    rows = []
    for vehicles in (10, 100):
        for delay in (0.05, 1.0, 5.0):
            cells = []
            for linger in (inputs.LINGER, 0.1, 1.0):
                each = fleet.requests(vehicles, 1.0, 1_000, linger, delay, 100 if quick else 400)
                cells.append(f"{each:.2f}")
            rows.append((f"{vehicles}, {time(delay) if delay >= 1 else '50 ms'}", *cells))
    return table(("vehicles, `commit_delay`", "linger 5 ms", "100 ms", "1 s"), rows)


def of_overhead(_box, _found, _quick):
    rows = []
    for batch in (1, 2, 10, 100, 700):
        used = wire.per_record(batch)
        rows.append((number(batch), number(used), f"{used / inputs.PAYLOAD:.2f}"))
    return table(("records a request", "bytes on the network a record", "for a byte of payload"), rows)


def of_fleet(_box, _found, _quick):
    each = fleet.requests(10, 1.0, 1_000, seconds=400)
    rows = []
    for boxes in (1_000, 100_000):
        records = boxes * 10 * 1.0
        lines = fleet.connections(boxes, 10, TYPES)
        answers, answer_bytes = fleet.metadata(boxes, TYPES, 1_000)
        states = fleet.producer_states(boxes, 10, TYPES, 1_000)
        hourly = fleet.producer_states(boxes, 10, TYPES, 1_000, sessions=24)
        rows += [
            (
                number(boxes),
                rough(records),
                size(records * wire.record()) + "/s",
                rough(records * each),
                number(lines / inputs.BROKERS),
                size(lines / inputs.BROKERS * inputs.CONNECTION),
                f"{number(answers)} a second, {size(answer_bytes)}/s",
                f"{rough(states)}, {size(states * inputs.PRODUCER_STATE)}",
                size(hourly * inputs.PRODUCER_STATE),
            )
        ]
    names = (
        "boxes",
        "records/s",
        "written, before replication",
        "produce requests/s",
        "connections a broker",
        "memory of these, a broker",
        "metadata answers",
        "producer states, cluster",
        "the same, a new session each hour",
    )
    turned = [(name, *[row[at] for row in rows]) for at, name in enumerate(names)]
    return table(turned[0], turned[1:])


def of_comeback(_box, _found, quick):
    boxes = 1_000 if quick else 4_000
    kinds = (
        ("the gateway's backoff, 0.5 to 60 s", herd.gateway_tries),
        ("a Kafka destination, connections refused", herd.librdkafka_refused),
        ("the same with librdkafka's own 10 s", herd.librdkafka_refused_by_default),
        ("a Kafka destination, packets vanish", herd.librdkafka_silent),
        ("the same with librdkafka's own 10 s", herd.librdkafka_silent_by_default),
    )
    rows = []
    for name, tries in kinds:
        for outage in (40, 310, 3_610):
            times = herd.comeback(tries, outage, boxes)
            cells = f"{herd.busiest(times):.0%}", time(herd.quantile(times, 0.5)), time(times[-1])
            rows.append((f"{name}; {time(outage)}", *cells))
    return table(("who tries; outage", "of all boxes in the busiest second", "half have tried", "all have tried"), rows)


def of_handshakes(_box, _found, quick):
    boxes, rate = (1_000, 10.0) if quick else (4_000, 40.0)
    kinds = (
        ("no more than 2 s of work is let in, SYNs repeat", dict(bounded=True, costly=False)),
        ("all wait; who has left costs nothing", dict(bounded=False, costly=False)),
        ("all wait; who has left costs a handshake", dict(bounded=False, costly=True)),
        ("the same, given up after 120 s instead of 30 s", dict(bounded=False, costly=True, timeout=120.0)),
        ("the same, 30 s, and the gateway's backoff between tries", dict(bounded=False, costly=True, backoff=True)),
    )
    rows = [(name, *map(time, herd.handshakes(boxes, rate, **kind))) for name, kind in kinds]
    return table(("the broker's line", "half connected", "99 %", "all"), rows)


def of_drain(_box, _found, quick):
    outage, live = 4 * 3_600, 10.0
    boxes = 50 if quick else 300
    up = inputs.UPLINK / wire.per_record(pace.batch(None, 10))
    rows = []
    for limit in (None, 15, 20, 30, 50):
        cluster = 5 * live * boxes
        peak, _, simulated = herd.drain(boxes, outage, live, cluster, up, limit)
        closed = herd.drain_time(outage, live, min(limit or up, cluster / boxes))
        rows.append(
            (
                "none" if limit is None else f"{limit}/s, {limit / live:.1f} times live",
                f"{peak / boxes / live:.1f}",
                time(closed),
                time(simulated),
                number(pace.in_flight(limit)),
                number(pace.batch(limit, 10)),
            )
        )
    head = ("limit of a box", "offered, times the live load", "caught up, closed form", "simulated")
    return table((*head, "records in flight", "records a request"), rows)


def of_linger(_box, _found, _quick):
    rows = []
    for limit in (20, 100, 500):
        through = [pace.throughput(limit, linger) for linger in (inputs.LINGER, 0.1, 0.5, 1.0)]
        rows.append((f"{limit}/s", *[f"{number(rate)}/s" for rate in through]))
    return table(("`max_records_per_second`", "linger 5 ms", "100 ms", "500 ms", "1 s"), rows)


def of_twice(box, _found, _quick):
    rows = []
    for what, records in pace.twice(10.0, min(box["drain"], inputs.UPLINK / wire.record())).items():
        rows.append((what, rough(max(records, 1)), rough(max(records, 1) * 100_000)))
    return table(("what happens", "records twice at most, one box", "all of 100,000 boxes at once"), rows)


def of_dedup(_box, _found, quick):
    rows = []
    usual = dedup.stream(records=400 if quick else 2_000)
    late = dedup.stream(records=400 if quick else 2_000, late=True)
    for kind in dedup.CONSUMERS:
        twice, lost, consumer, read = dedup.consume(kind, *usual)
        late_twice, late_lost, late_consumer, late_read = dedup.consume(kind, *late)
        looked = f"{consumer.looked_up / read:.0%} / {late_consumer.looked_up / late_read:.0%}"
        counts = twice, lost, late_twice, late_lost, consumer.entries
        rows.append((kind.name, *map(number, counts), looked))
    head = ("what the consumer keeps", "twice", "lost", "twice, with late ones", "lost, with late ones", "entries")
    return table((*head, "looked up"), rows)


def of_marks(_box, _found, _quick):
    rows = []
    for boxes in (1_000, 100_000):
        for vehicles in (10, 100):
            for partitions in (100, 1_000):
                marks = dedup.marks(boxes, vehicles, TYPES, partitions)
                name = f"{number(boxes)}, {vehicles}, {number(partitions)}"
                each = number(marks / TYPES / partitions, 2)
                rows.append((name, rough(marks), each, size(48 * marks), size(150 * marks)))
    head = ("boxes, vehicles a box, partitions a topic", "marks in all", "in one partition", "at 48 bytes")
    return table((*head, "at 150 bytes"), rows)


TABLES = {
    "inputs": of_inputs,
    "disk": of_disk,
    "days": of_days,
    "box": of_box,
    "backlog": of_backlog,
    "partitions": of_partitions,
    "requests": of_requests,
    "overhead": of_overhead,
    "fleet": of_fleet,
    "comeback": of_comeback,
    "handshakes": of_handshakes,
    "drain": of_drain,
    "linger": of_linger,
    "twice": of_twice,
    "dedup": of_dedup,
    "marks": of_marks,
}
