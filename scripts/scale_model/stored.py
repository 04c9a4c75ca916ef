"""What a record takes on the disk: the stored form to the byte, and redb's pages around it.

Not counted: what the file system keeps of its own, and the device's own write amplification.
"""

import math

from . import inputs

PAGE = 4096
# Seen in a real segment: headers, allocator, pages that were freed and not yet used again.
SEGMENT_FIXED = 80 << 10
# A branch page's entry for one leaf: key, page number, checksum.
BRANCH_ENTRY = 8 + 8 + 16


def varint(value):
    return max(1, -(-value.bit_length() // 7))


def frame(payload=inputs.PAYLOAD, number=10**9, vin=17, record_type=1, txid=inputs.TXID, version=len(inputs.VERSION)):
    """A record's frame: length and checksum, then `StoredRecord`, as src/record/stored.rs writes it."""

    def field(length):
        return 1 + varint(length) + length

    time = 1 + 8
    texts = field(vin) + field(record_type) + field(txid) + field(version) + field(payload)
    return 4 + 8 + 1 + varint(number) + time + texts


def row(length):
    """Bytes of a row's pages: rows of up to a page share one, in order; larger ones have a power of two of their own.
    """
    # A leaf has four bytes, and each of its rows a length and a key of eight.
    if 4 + 12 + length > PAGE:
        return PAGE << math.ceil(math.log2(math.ceil((4 + 12 + length) / PAGE)))
    return PAGE / ((PAGE - 4) // (12 + length))


def room(left):
    """Bytes of the next row when so many are left, as src/queue/chunks.rs cuts a batch: what fills its page."""
    if left + inputs.ROW_OVERHEAD >= inputs.CHUNK:
        return inputs.CHUNK - inputs.ROW_OVERHEAD
    page = 1 << (left + inputs.ROW_OVERHEAD - 1).bit_length()
    if page <= PAGE or left + inputs.ROW_OVERHEAD > page // 4 * 3:
        return left
    return page // 2 - inputs.ROW_OVERHEAD


def rows_of(records, size):
    """The lengths of the rows of a commit of so many frames of a size."""
    rows = []
    while records > 0:
        fit = min(records, max(1, room(records * size) // size))
        rows.append(fit * size)
        records -= fit
    return rows


def commit(records, size):
    """Bytes on the disk of a commit of so many frames of a size."""
    pages = [row(length) for length in rows_of(records, size)]
    # Rows that share a leaf share its entry in the branch above.
    return sum(bytes_used + BRANCH_ENTRY * min(1, bytes_used / PAGE) for bytes_used in pages)


def commit_size(rate, delay=inputs.COMMIT_DELAY, fsync=inputs.FSYNC):
    """The mean number of records in a commit: the wait for company while few come, and what comes during a commit."""
    waits = rate < inputs.BUSY
    return max(min(1 + rate * delay, inputs.ENOUGH_RECORDS) if waits else 1, rate * fsync)


def together(records, size):
    """How many records go into a segment together, when so many are in a commit."""
    if records * size > inputs.JOURNALED:
        return max(1, round(records))
    blocks = PAGE * math.ceil((inputs.JOURNAL_HEAD + records * size) / PAGE)
    return max(1, round(records * ((inputs.JOURNAL - PAGE) // blocks)))


def per_record(rate, payload=inputs.PAYLOAD, delay=inputs.COMMIT_DELAY):
    """Bytes on the disk of a record at so many records a second, the journal itself not counted."""
    size = frame(payload)
    records = together(commit_size(rate, delay), size)
    return commit(records, size) / records + SEGMENT_FIXED * size / inputs.SEGMENT
