"""A vehicle that shares no code with the gateway: Google's FlatBuffers runtime, and a WebSocket client of the Python world.

Usage: vehicle.py PORT DIR VIN RECORDS

DIR holds server-ca.pem and vehicles/VIN.pem and .key. Sends records, then what a gateway has to refuse, and prints what
was answered as one line of JSON. Judges nothing but the form of the answers: that is the test's part.
"""

import http.client
import json
import ssl
import struct
import sys
import uuid

import flatbuffers
from flatbuffers import encode, number_types, packer, table
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

STREAM, STREAM_ACK = 4, 5
TXID, TOPIC, MESSAGE_TYPE, MESSAGE, MESSAGE_ID = range(5)
CREATED_AT, SENDER_ID, PAYLOAD, DEVICE_TYPE, DEVICE_ID, DELIVERED_AT = range(6)
PATIENCE = 30


def envelope(txid, topic, sender_id, payload, message_type=STREAM):
    builder = flatbuffers.Builder(256)
    strings = {slot: builder.CreateByteVector(value) for slot, value in ((SENDER_ID, sender_id), (PAYLOAD, payload))}
    builder.StartObject(6)
    for slot, at in strings.items():
        builder.PrependUOffsetTRelativeSlot(slot, at, 0)
    builder.PrependUint32Slot(CREATED_AT, 1_700_000_000, 0)
    message = builder.EndObject()
    names = {slot: builder.CreateByteVector(value) for slot, value in ((TXID, txid), (TOPIC, topic))}
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(MESSAGE, message, 0)
    for slot, at in names.items():
        builder.PrependUOffsetTRelativeSlot(slot, at, 0)
    builder.PrependUint8Slot(MESSAGE_TYPE, message_type, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


class Reader:
    """A table, field by field, with the runtime's own accessors."""

    def __init__(self, data, at):
        self.table = table.Table(data, at)

    @classmethod
    def root(cls, data):
        return cls(data, encode.Get(packer.uoffset, data, 0))

    def offset(self, slot):
        return self.table.Offset(4 + 2 * slot)

    def string(self, slot):
        at = self.offset(slot)
        return bytes(self.table.String(at + self.table.Pos)) if at else b""

    def number(self, slot, flags):
        return self.table.GetSlot(4 + 2 * slot, 0, flags)

    def member(self, slot):
        return Reader(self.table.Bytes, self.table.Indirect(self.offset(slot) + self.table.Pos))


def answer(data):
    """An answer as a list: what it is, txid, topic. Anything but an ack or an error reply is an exception."""
    root = Reader.root(bytearray(data))
    kind = root.number(MESSAGE_TYPE, number_types.Uint8Flags)
    txid, topic, message_id = (root.string(slot).decode() for slot in (TXID, TOPIC, MESSAGE_ID))
    assert message_id == "", message_id
    if kind == STREAM_ACK:
        assert root.offset(MESSAGE), "an ack has a message, whatever its form"
        return ["ack", txid, topic]
    assert kind == STREAM, kind
    stream = root.member(MESSAGE)
    assert stream.string(PAYLOAD) == b"incorrect message format", stream.string(PAYLOAD)
    assert not any(stream.string(slot) for slot in (SENDER_ID, DEVICE_TYPE, DEVICE_ID))
    assert stream.number(CREATED_AT, number_types.Uint32Flags) == 0
    assert stream.number(DELIVERED_AT, number_types.Uint64Flags) == 0
    return ["error", txid, topic]


def field(number, value):
    """A protobuf field: a float, an int, or bytes of less than 128."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def payload(topic, number):
    if topic == "V":
        return field(1, field(1, 4) + field(2, field(4, float(number))))
    name = f"{topic} {number}".encode()
    return field(1, field({"alerts": 1, "errors": 2}[topic], name))


def answers_of_the_bad(socket, good, own):
    """What the gateway says to each message that is not a record it keeps."""
    other = b"vehicle_device.SOMEONEELSE"
    bad = {
        "cut": good[: len(good) // 2],
        "not an envelope": b"D4,test,1234",
        "root beyond the end": struct.pack("<I", 1 << 30) + good[4:],
        "no protobuf": envelope(b"no protobuf", b"V", own, b"\x0a\xff"),
        "no UTF-8": envelope(b"no UTF-8", b"V", own, field(3, b"\xff\xfe")),
        "not routed": envelope(b"not routed", b"canlogs", own, b"x"),
        "not routed, not ours": envelope(b"not routed, not ours", b"canlogs", other, b"x"),
        "another type": envelope(b"another type", b"V", own, b"x", message_type=9),
        "nothing": b"",
        "too large": envelope(b"too large", b"V", own, bytes(1_000_000)),
    }
    answers = {}
    for name, message in bad.items():
        socket.send(message)
        answers[name] = answer(socket.recv(PATIENCE))
    return answers


def end_after(socket, message):
    """The answers after a message that ends the connection, and the close code."""
    answers = []
    try:
        socket.send(message)
        while True:
            answers.append(answer(socket.recv(PATIENCE)))
    except ConnectionClosed as closed:
        return [answers, closed.rcvd.code if closed.rcvd else None]


def main(port, directory, vin, records):
    tls = ssl.create_default_context(cafile=f"{directory}/server-ca.pem")
    # As newer versions of Python do by themselves.
    tls.verify_flags |= ssl.VERIFY_X509_STRICT
    tls.load_cert_chain(f"{directory}/vehicles/{vin}.pem", f"{directory}/vehicles/{vin}.key")
    headers = {"Version": "foreign 1.0", "X-Network-Interface": "wifi", "X-TXID": str(uuid.uuid4())}

    def connected():
        return connect(f"wss://localhost:{port}/", ssl=tls, additional_headers=headers, max_size=None, proxy=None)

    own = b"vehicle_device." + vin.encode()
    result = {"txids": [], "answers": []}
    with connected() as socket:
        result["extensions"] = [type(extension).__name__ for extension in socket.protocol.extensions]
        for number in range(records):
            topic = {3: "alerts", 7: "errors"}.get(number % 10, "V")
            result["txids"].append([f"foreign-{number}", topic])
            socket.send(envelope(f"foreign-{number}".encode(), topic.encode(), own, payload(topic, number)))
        for _ in range(records):
            result["answers"].append(answer(socket.recv(PATIENCE)))
        good = envelope(b"last", b"V", own, payload("V", 1))
        result["bad"] = answers_of_the_bad(socket, good, own)
        result["pong"] = socket.ping().wait(PATIENCE)
        socket.send(good)
        result["last"] = answer(socket.recv(PATIENCE))
        result["far too large"] = end_after(socket, bytes(3_000_000))
    with connected() as socket:
        result["text"] = end_after(socket, "D4,test,1234")
    status = http.client.HTTPSConnection("localhost", port, context=tls, timeout=PATIENCE)
    status.request("GET", "/status")
    result["status"] = status.getresponse().read().decode()
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
