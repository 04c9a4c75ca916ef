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


def commit(records, size):
    """Bytes on the disk of a commit of so many frames of a size: full chunks, and a row with the rest."""
    full = math.ceil(inputs.CHUNK / size)
    chunks, rest = divmod(records, full)
    rows = [row(full * size)] * chunks + ([row(rest * size)] if rest else [])
    # Rows that share a leaf share its entry in the branch above.
    return sum(pages + BRANCH_ENTRY * min(1, pages / PAGE) for pages in rows)


def commit_size(rate, delay=inputs.COMMIT_DELAY, fsync=inputs.FSYNC):
    """The mean number of records in a commit: the wait for company, or what comes during a commit, if that is more."""
    return max(min(1 + rate * delay, inputs.ENOUGH_RECORDS), rate * fsync)


def per_record(rate, payload=inputs.PAYLOAD, delay=inputs.COMMIT_DELAY):
    """Bytes on the disk of a record at so many records a second, over the sizes that commits then have."""
    size = frame(payload)
    mean = commit_size(rate, delay)
    if mean >= inputs.ENOUGH_RECORDS:
        used = commit(round(mean), size) / round(mean)
    else:
        # The first record, and a Poisson number of others.
        bytes_used, others, chance = 0.0, mean - 1, math.exp(1 - mean)
        for extra in range(200):
            bytes_used += chance * commit(1 + extra, size)
            chance *= others / (extra + 1)
        used = bytes_used / mean
    return used + SEGMENT_FIXED * size / inputs.SEGMENT
