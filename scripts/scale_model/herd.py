"""Simulations of many boxes that come back at once: their tries, the brokers' handshakes, and the backlog.

Every function is seeded. Boxes are alike and lose the cluster in the same moment, which is the worst case.
"""

import heapq
import random

from . import inputs


def gateway_tries(rng, until, first=0.0):
    """When a destination of ours tries: 0.5 s doubling to 60 s, between half and all of a step
    (src/forwarder/backoff.rs). MQTT's sessions, and Kafka's where a session ended."""
    at, step = first, inputs.BACKOFF_FIRST
    while True:
        at += step / 2 + rng.random() * step / 2
        step = min(2 * step, inputs.BACKOFF_LONGEST)
        yield at
        if at >= until:
            return


def librdkafka_refused(rng, until, first=0.0, longest=inputs.RECONNECT_LONGEST):
    """When librdkafka tries while connections are refused: 0.1 s doubling to the longest, from 25 % less to 50 % more,
    and then cut to the longest (rd_kafka_broker_update_reconnect_backoff)."""
    at, step = first, inputs.RECONNECT_FIRST
    while True:
        at += min(step * (0.75 + 0.75 * rng.random()), longest)
        step = min(2 * step, longest)
        yield at
        if at >= until:
            return


def librdkafka_silent(rng, until, first=0.0, longest=inputs.RECONNECT_LONGEST):
    """When SYNs leave while packets vanish. An attempt is given up after 30 s. Its backoff counts from its beginning,
    and starts again from 0.1 s when it ran out longer ago than the longest: with 10 s that is always so."""
    at, step, allowed = first, inputs.RECONNECT_FIRST, first
    while True:
        if allowed + longest < at:
            step = inputs.RECONNECT_FIRST
        allowed = at + min(step * (0.75 + 0.75 * rng.random()), longest)
        step = min(2 * step, longest)
        for syn in inputs.SYNS:
            yield at + syn
            if at + syn >= until:
                return
        at = max(at + inputs.SETUP_TIMEOUT, allowed)


def librdkafka_refused_by_default(rng, until, first=0.0):
    """With librdkafka's own `reconnect.backoff.max.ms`."""
    return librdkafka_refused(rng, until, first, inputs.RECONNECT_LONGEST_OWN)


def librdkafka_silent_by_default(rng, until, first=0.0):
    """With librdkafka's own `reconnect.backoff.max.ms`."""
    return librdkafka_silent(rng, until, first, inputs.RECONNECT_LONGEST_OWN)


def comeback(tries, outage, boxes, spread=0.5, seed=1):
    """The first try of each box after the outage, in seconds after its end, sorted. Boxes notice it within `spread`."""
    rng = random.Random(seed)
    found = []
    for _ in range(boxes):
        last = 0.0
        for last in tries(rng, outage, rng.random() * spread):
            pass
        found.append(last - outage)
    return sorted(found)


def busiest(times, width=1.0):
    """The largest share of the boxes within so many seconds."""
    most, start = 0, 0
    for end, time in enumerate(times):
        while times[start] < time - width:
            start += 1
        most = max(most, end - start + 1)
    return most / len(times)


def quantile(times, share):
    return times[min(len(times) - 1, int(share * len(times)))]


def handshakes(boxes, rate, bounded, costly, timeout=inputs.SETUP_TIMEOUT, backoff=False, end=1_200.0, seed=1):
    """One broker that makes `rate` handshakes a second, and boxes that all try within a second.

    `bounded`: it accepts no more than it can make in two seconds, and the others' SYNs are dropped and repeated. Else
    all wait in line, and those that have waited for `timeout` are gone when their turn comes; `costly`: the broker
    notices only after the work. `backoff`: a box that was given up on waits like the gateway's destinations, else it
    begins again at once. Returns when half, 99 % and all boxes were connected; None for what did not happen by `end`.
    """
    rng = random.Random(seed)
    events = [(rng.random(), box, 0) for box in range(boxes)]
    heapq.heapify(events)
    began, steps = [0.0] * boxes, [inputs.BACKOFF_FIRST] * boxes
    free, line, done = 0.0, [], []
    room = max(1, int(2 * rate))
    head, epochs = 0, [0] * boxes

    def again(box, now):
        wait = 0.0
        if backoff:
            wait = steps[box] / 2 + rng.random() * steps[box] / 2
            steps[box] = min(2 * steps[box], inputs.BACKOFF_LONGEST)
        epochs[box] += 1
        heapq.heappush(events, (now + wait, box, 0))

    def serve(now):
        nonlocal free, head
        while head < len(line):
            asked, box, epoch = line[head]
            start = max(free, asked)
            if start > now:
                return
            head += 1
            gone = epoch != epochs[box] or start - began[box] >= timeout
            if gone and not costly:
                continue
            free = start + 1 / rate
            if not gone and free - began[box] < timeout:
                epochs[box] = -1
                done.append(free)

    while events and len(done) < boxes:
        now, box, syn = heapq.heappop(events)
        if now > end:
            break
        serve(now)
        if epochs[box] < 0:
            continue
        if syn == len(inputs.SYNS):
            again(box, now)
        else:
            if syn == 0:
                began[box] = now
            if not bounded or len(line) - head < room:
                line.append((now, box, epochs[box]))
                heapq.heappush(events, (began[box] + timeout, box, len(inputs.SYNS)))
            else:
                later = inputs.SYNS[syn + 1] if syn + 1 < len(inputs.SYNS) else timeout
                heapq.heappush(events, (began[box] + later, box, syn + 1))
    serve(end)
    done.sort()
    return [done[int(share * boxes) - 1] if len(done) >= int(share * boxes) else None for share in (0.5, 0.99, 1.0)]


def drain_time(outage, live, limit):
    """Seconds until a backlog is gone that grew at `live` records a second, with live records coming on."""
    return float("inf") if limit <= live else outage * live / (limit - live)


def drain(boxes, outage, live, cluster, uplink, limit=None, step=10.0, seed=1):
    """Boxes with a backlog of `outage` seconds share a cluster that takes `cluster` records a second, each at most its
    `uplink` and its `limit`. An overloaded cluster is shared evenly. Boxes come back within a minute.
    Returns: the busiest step in records a second, when half the boxes and when all have no backlog."""
    rng = random.Random(seed)
    back = [rng.random() * 60 for _ in range(boxes)]
    left = [live * (outage + at) for at in back]
    most = min(uplink, limit or uplink)
    time, busiest_step, gone = 0.0, 0.0, [None] * boxes
    if most <= live or cluster <= live * boxes:
        return boxes * most, None, None
    while None in gone:
        time += step
        active = [box for box in range(boxes) if back[box] <= time]
        wishes = [min(most, left[box] / step + live) for box in active]
        busiest_step = max(busiest_step, sum(wishes))
        share = _even(wishes, cluster)
        for box, wish in zip(active, wishes):
            left[box] += (live - min(wish, share)) * step
            if left[box] <= 1e-6 and gone[box] is None:
                gone[box] = time
    gone.sort()
    return busiest_step, gone[boxes // 2], gone[-1]


def _even(wishes, capacity):
    """The share that nobody exceeds, so that all together take no more than the capacity."""
    if sum(wishes) <= capacity:
        return max(wishes, default=0.0)
    left, others = capacity, len(wishes)
    for wish in sorted(wishes):
        if wish * others >= left:
            return left / others
        left -= wish
        others -= 1
    return max(wishes, default=0.0)
