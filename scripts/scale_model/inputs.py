"""Every number that the model takes from elsewhere: measured, from the sources, or assumed. Nothing is computed here.
"""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

# One box: (the row's id in target/gateway.json, its words, the value without that file). The values are those of
# docs/performance.md.
MEASURED = {
    "cost": ("latency.cost", "processor time at 1,000 records/s of 100 vehicles", 134.0),
    "idle": ("backlog.idle", "resident memory, idle", 12.9),
    "thousand": ("backlog.thousand", "resident memory, 1,000 idle vehicles", 33.5),
    "drain": ("kafka.broker", "drain to Kafka, a real broker", 221_742.0),
}

# The gateway's own, from its sources and config.toml.example.
SEGMENT = 32 << 20
MAX_BYTES = 4 << 30
COMMIT_DELAY = 0.050
ENOUGH_RECORDS = 32
# Records a second from which on no commit waits for company.
BUSY = 500
# The largest row, with what a page holds beside it.
CHUNK = 64 << 10
ROW_OVERHEAD = 64
# Smaller commits go into the journal first, each in blocks of its own behind a head, and from there into a segment together.
JOURNALED = 32 << 10
JOURNAL = 4 << 20
JOURNAL_HEAD = 20
WINDOW_RECORDS = 2_048
WINDOW_BYTES = 2 << 20
WINDOW_EXTRA = 1_024
DUPLICATES_KNOWN = 174_762
CURSOR_SAVED = 1.0
MAX_CONNECTIONS = 1_024
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 60.0

# Librdkafka's own; and the gateway's, in place of its 1,000,000 and 10 s.
LINGER = 0.005
BATCH_BYTES = 64 << 10
RECONNECT_LONGEST = 60.0
# librdkafka 2.10's defaults. The gateway does not change them, but for the longest wait.
RECONNECT_FIRST, RECONNECT_LONGEST_OWN = 0.100, 10.0
SETUP_TIMEOUT = 30.0
METADATA_EVERY = 300.0
# Linux repeats a SYN after 1, 3, 7 and 15 s; the next would come after the setup timeout.
SYNS = (0.0, 1.0, 3.0, 7.0, 15.0)

# A record as the benches have it.
PAYLOAD = 600
TXID = 36
VERSION = "1.2.0"

# Assumed, and never measured by us. Change them to your own.
FSYNC = 0.004  # a commit on an SD card; on the disk of docs/performance.md it takes a twentieth of that
UPLINK = 10e6 / 8  # bytes a second of one box: a 4G uplink
BROKERS = 6
REPLICAS = 3
HANDSHAKES = 1_000  # TLS handshakes a second of one broker
PRODUCER_STATE = 500  # bytes of heap of one producer's state in one partition's replica
CONNECTION = 50_000  # bytes of a broker for one TLS connection: three buffers of a TLS record
METADATA_PARTITION = 42  # bytes in a metadata answer, with three replicas


def constants():
    """The figures by their short names, as they are kept here."""
    return {name: value for name, (_, _, value) in MEASURED.items()}


def load(path=ROOT / "target" / "gateway.json"):
    """Those that were measured last on this machine, the constants for the others, and which were measured."""
    rows = {}
    if path.is_file():
        rows = {row.get("id"): row["measured"]["median"] for row in json.loads(path.read_text()) if row.get("measured")}
    box = {name: rows.get(key, value) for name, (key, _, value) in MEASURED.items()}
    found = [name for name, (key, _, _) in MEASURED.items() if key in rows]
    return box, found
