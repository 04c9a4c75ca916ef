"""Paper about rates, windows and duplicates of one destination: what a speed limit does to batches, and how much can
come twice."""

from . import inputs, stored, wire


def in_flight(limit=None):
    """Records that may be unconfirmed: the window, or half a second's worth of a speed limit (src/forwarder/flow.rs).
    """
    return wire.window() if limit is None else min(wire.window(), max(1, int(limit) // 2))


def throughput(limit, linger=inputs.LINGER, round_trip=0.1):
    """Records a second under a speed limit: what is in flight waits for its batch to close and for its answer."""
    return min(limit, in_flight(limit) / (linger + round_trip))


def batch(limit, partitions):
    """Records in a request while a backlog drains to so many partitions: without a limit the window's, with one what
    comes within the linger, and never more than what may be in flight."""
    if limit is None:
        return max(1.0, min(in_flight() / partitions, inputs.BATCH_BYTES / wire.record()))
    return max(1.0, min(in_flight(limit), limit * inputs.LINGER) / partitions)


def share_without_timeouts(timeout=60.0):
    """Records a second that a cluster must take from each draining box, or requests outlive socket.timeout.ms."""
    return in_flight() / timeout


def twice(rate, drain, round_trip=0.1):
    """At most so many records come twice: (what happened, records)."""
    live = rate * (inputs.LINGER + round_trip)
    return {
        "session ends, keeping up": live,
        "session ends, draining": in_flight(),
        "box killed, keeping up": live + rate * inputs.CURSOR_SAVED,
        "box killed, draining": in_flight() + drain * inputs.CURSOR_SAVED,
        "cursors lost, keeping up": inputs.SEGMENT // stored.frame() + in_flight(),
    }
