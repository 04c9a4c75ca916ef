"""What a record takes on its way to a broker: a record of Kafka's format 2, with the gateway's headers."""

from . import inputs
from .stored import varint

BATCH = 61  # of a record batch
# Request header, acks, timeout, one topic of 20 characters and one partition, and the client's name.
REQUEST = 4 + 8 + 2 + 7 + 2 + 2 + 4 + 1 + 21 + 1 + 4 + 5 + 3
# A TLS record, and a TCP segment with its acknowledgement, over IPv4.
PACKET = 22 + 2 * 52


def zigzag(value):
    return varint(2 * value)


def record(payload=inputs.PAYLOAD, number=10**9, vin=17, record_type="V"):
    """One record in a batch: key VIN, the payload, eight headers."""
    headers = {
        "vin": vin,
        "receivedat": 13,
        "timestamp": 1,
        "txid": inputs.TXID,
        "txtype": len(record_type),
        "version": 1,
        "device_client_version": len(inputs.VERSION),
        "record": 32 + 1 + len(str(number)),
    }
    size = 1 + 2 + 1 + zigzag(vin) + vin + zigzag(payload) + payload + zigzag(len(headers))
    size += sum(zigzag(len(name)) + len(name) + zigzag(length) + length for name, length in headers.items())
    return zigzag(size) + size


def per_record(batch, payload=inputs.PAYLOAD):
    """Bytes of a record on the network, without compression, when so many share a request."""
    whole = REQUEST + BATCH + batch * record(payload)
    packets = max(1, whole / 1400)
    return (whole + packets * PACKET) / batch


def window(payload=inputs.PAYLOAD):
    """Records that may be on their way to Kafka at once."""
    return min(inputs.WINDOW_RECORDS, -(-inputs.WINDOW_BYTES // (payload + inputs.TXID + inputs.WINDOW_EXTRA)))
