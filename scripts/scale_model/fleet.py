"""Paper about a cluster that many boxes feed: keys and partitions, connections, requests, and what brokers keep.

`requests` is the exception: a simulation of one box, because no formula that is short covers commit, linger and keys.
"""

import math
import random
import zlib

from . import inputs

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def vin(serial):
    """The VIN of the vehicle with this number: a few models, years and plants, and a running number as real ones have.
    """
    check = "0123456789X"[serial * 7 % 11]
    return f"5YJ{'3SYX'[serial % 4]}E1EA{check}{LETTERS[serial // 999_983 % 22]}F{serial % 1_000_000:06d}"


def partition(key, partitions):
    """librdkafka's `consistent_random`: CRC32 of the key, as an unsigned number, modulo the partitions."""
    return zlib.crc32(key.encode()) % partitions


def skew(vehicles, partitions, weight=lambda _: 1.0):
    """The busiest partition's load by the mean one's, and how many partitions have none."""
    loads = [0.0] * partitions
    for serial in range(vehicles):
        loads[partition(vin(serial), partitions)] += weight(serial)
    return max(loads) * partitions / sum(loads), loads.count(0.0)


def even_keys(vehicles, partitions):
    """What a perfect hash would have: the largest of so many Poisson numbers, about."""
    mean = vehicles / partitions
    return 1 + math.sqrt(2 * math.log(partitions) / mean)


def distinct(kinds, draws):
    """How many different ones of so many kinds are met in so many even draws."""
    return kinds * (1 - (1 - 1 / kinds) ** draws)


def connections(boxes, vehicles, types, brokers=inputs.BROKERS):
    """Connections in all: a box has one to each broker that leads a partition of one of its keys."""
    return boxes * distinct(brokers, vehicles * types)


def producer_states(boxes, vehicles, types, partitions, sessions=1):
    """Entries of producers in the partitions of the whole cluster, replicas included, within their expiry."""
    return boxes * sessions * types * distinct(partitions, vehicles) * inputs.REPLICAS


def metadata(boxes, types, partitions, every=inputs.METADATA_EVERY):
    """Metadata answers a second, and their bytes a second."""
    answers = boxes / every
    return answers, answers * types * partitions * inputs.METADATA_PARTITION


def requests(vehicles, rate, partitions, linger=inputs.LINGER, delay=inputs.COMMIT_DELAY, seconds=600, seed=1):
    """Produce requests for a record of one box that keeps up: vehicles send at random, the queue commits, the producer
    holds each partition's first record for the linger and sends one request with what that partition has by then."""
    rng = random.Random(seed)
    homes = [partition(vin(serial * 7919), partitions) for serial in range(vehicles)]
    time, arrivals = 0.0, []
    while time < seconds:
        time += rng.expovariate(vehicles * rate)
        arrivals.append((time, homes[rng.randrange(vehicles)]))
    sent, at, free = 0, 0, 0.0
    closes = {}
    while at < len(arrivals):
        begin = max(free, arrivals[at][0])
        # The wait ends with its time, or when enough waits.
        enough = arrivals[min(at + inputs.ENOUGH_RECORDS, len(arrivals)) - 1][0]
        free = max(begin, min(begin + delay, enough)) + inputs.FSYNC
        taken = free - inputs.FSYNC
        while at < len(arrivals) and arrivals[at][0] <= taken:
            home = arrivals[at][1]
            if closes.get(home, -1.0) < free:
                sent += 1
                closes[home] = free + linger
            at += 1
    return sent / len(arrivals)
