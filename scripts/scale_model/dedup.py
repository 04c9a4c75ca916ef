"""A simulation of what consumers of a topic keep to see each record once, on streams that come twice and out of turn.

The log of a partition is what a Kafka partition would hold: of each session of a gateway the records of this partition
in the order of their numbers, cut off anywhere; the next session begins at the first number that was not confirmed."""

import random
from collections import OrderedDict

from . import fleet


class Everything:
    """Keeps nothing."""

    name = "none"

    def __init__(self, _sink):
        self.entries = 0
        self.looked_up = 0

    def wants(self, _partition, _queue, _number):
        return True


class Recent(Everything):
    """The last ids of each partition, a thousand of them."""

    name = "the last 1,000 ids of a partition"

    def __init__(self, sink):
        super().__init__(sink)
        self.known = {}

    def wants(self, partition, queue, number):
        known = self.known.setdefault(partition, OrderedDict())
        if (queue, number) in known:
            return False
        known[queue, number] = None
        if len(known) > 1_000:
            known.popitem(last=False)
        self.entries = sum(map(len, self.known.values()))
        return True


class MarkPerQueue(Everything):
    """The highest number of a queue, over all partitions."""

    name = "one mark a queue"

    def __init__(self, sink):
        super().__init__(sink)
        self.marks = {}

    def key(self, _partition, queue):
        return queue

    def below(self, _partition, _queue, _number):
        return False

    def wants(self, partition, queue, number):
        key = self.key(partition, queue)
        if number <= self.marks.get(key, -1):
            return self.below(partition, queue, number)
        self.marks[key] = number
        self.entries = len(self.marks)
        return True


class MarkPerPartition(MarkPerQueue):
    """The highest number of a queue in a partition; what is not above it is dropped."""

    name = "a mark for each queue and partition, drop below"

    def key(self, partition, queue):
        return partition, queue


class MarkAndLook(MarkPerPartition):
    """The same, but what is not above the mark is looked up where the records are kept."""

    name = "a mark for each queue and partition, look up below"

    def __init__(self, sink):
        super().__init__(sink)
        self.sink = sink

    def below(self, _partition, queue, number):
        self.looked_up += 1
        return (queue, number) not in self.sink


CONSUMERS = (Everything, Recent, MarkPerQueue, MarkPerPartition, MarkAndLook)


def sessions(rng, queue, homes, logs, window, failures):
    """Delivers a queue's records, `homes[number]` being each one's partition, through sessions that fail so often."""
    cursor, end = 0, len(homes)
    for turn in range(failures + 1):
        last = turn == failures
        reach = end if last else min(end, cursor + rng.randrange(1, end - cursor + 1 if end > cursor else 2))
        # All before the window were appended and confirmed; of the window each partition has a prefix.
        settled = reach if last else max(cursor, reach - rng.randrange(1, window + 1))
        appended, confirmed, cut = {}, {}, {}
        for number in range(settled, reach):
            appended.setdefault(homes[number], []).append(number)
        for home, numbers in appended.items():
            cut[home] = rng.randrange(len(numbers) + 1)
            confirmed[home] = rng.randrange(cut[home] + 1)
        for number in range(cursor, settled):
            logs[homes[number]].append((queue, number))
        for home, numbers in appended.items():
            logs[home].extend((queue, number) for number in numbers[: cut[home]])
        unconfirmed = [number for home, numbers in appended.items() for number in numbers[confirmed[home] :]]
        cursor = min(unconfirmed, default=reach)


def stream(queues=20, vehicles=10, records=2_000, partitions=24, window=400, failures=3, late=False, seed=1):
    """Partitions' logs, and the set of all ids in them. `late`: a few records come after later ones of their partition,
    under their own numbers: dead letters that are tried again, and a range that another box delivered from a stick
    first."""
    rng = random.Random(seed)
    logs = [[] for _ in range(partitions)]
    ids = set()
    for queue in range(queues):
        own = [fleet.partition(fleet.vin(queue * vehicles + at), partitions) for at in range(vehicles)]
        homes = [own[rng.randrange(vehicles)] for _ in range(records)]
        ids |= {(queue, number) for number in range(records)}
        mine = [[] for _ in range(partitions)]
        carried = range(records // 4, records // 2) if late and queue % 5 == 0 else ()
        for number in carried:
            mine[homes[number]].append((queue, number))
        sessions(rng, queue, homes, mine, window, failures)
        if late:
            again = set(rng.sample(range(records), 5)) - set(carried)
            mine = [[entry for entry in log if entry[1] not in again] for log in mine]
            for number in sorted(again):
                mine[homes[number]].append((queue, number))
        # Boxes' records interleave in a partition, each box's in its own order.
        for log, part in zip(logs, mine):
            log[:] = merged(rng, log, part)
    return logs, ids


def merged(rng, one, other):
    """Both lists' items at random, each list's in its order."""
    picks = [True] * len(one) + [False] * len(other)
    rng.shuffle(picks)
    ahead, behind = iter(one), iter(other)
    return [next(ahead if pick else behind) for pick in picks]


def consume(kind, logs, ids, seed=1):
    """Reads all partitions in runs of random lengths. Returns records twice, records lost, the consumer and how many
    were read."""
    rng = random.Random(seed)
    sink, twice, read = set(), 0, 0
    consumer = kind(sink)
    at = [0] * len(logs)
    open_logs = [home for home, log in enumerate(logs) if log]
    while open_logs:
        home = rng.choice(open_logs)
        for queue, number in logs[home][at[home] : at[home] + rng.randrange(1, 200)]:
            at[home] += 1
            read += 1
            if consumer.wants(home, queue, number):
                twice += (queue, number) in sink
                sink.add((queue, number))
        if at[home] == len(logs[home]):
            open_logs.remove(home)
    return twice, len(ids - sink), consumer, read


def marks(boxes, vehicles, types, partitions):
    """Marks that all consumers together keep."""
    return boxes * types * fleet.distinct(partitions, vehicles)
