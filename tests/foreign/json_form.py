"""Compares the gateway's two forms of records with Google's protobuf library: what the JSON form says has to be what
json_format makes of the protobuf form.

Usage: json_form.py DESCRIPTORS PORT DIR VIN PROTOBUF_ENDPOINT JSON_ENDPOINT RECORDS SEED

Sends generated payloads of all four types as a vehicle, receives both forms over ZMQ with their metadata, and prints one
line of JSON: how many were the same, what was in them, and the first that differ.
"""

import json
import math
import random
import ssl
import sys
import time

import zmq
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from vehicle import PATIENCE, answer, envelope
from websockets.sync.client import connect

TYPES = {
    "V": "telemetry.vehicle_data.Payload",
    "alerts": "telemetry.vehicle_alerts.VehicleAlerts",
    "errors": "telemetry.vehicle_error.VehicleErrors",
    "connectivity": "telemetry.vehicle_connectivity.VehicleConnectivity",
}
TIMESTAMP = "google.protobuf.Timestamp"
# A field 1000 that holds "new", and a group 1001: what a newer vehicle may send.
UNKNOWN = b"\xc2\x3e\x03new" + b"\xcb\x3e\x08\x01\xcc\x3e"
STRINGS = ["", "a", "(37.412374 N, 122.145867 W)", "1.5e3", "ä€𝄞", 'quote " back \\ tab \t', "\x00\x1f\x7f", "</script>", "\u2028"]
# Without subnormal floats, of which Google's Python does not print the shortest form.
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e-7, 16777216.0, 3.4028234e38, 1.1754944e-38, math.inf, -math.inf, math.nan]
DOUBLES = FLOATS + [1e-45, 0.1 + 0.2, 1e21, 1.7976931348623157e308, 5e-324, 123456789.123456789]


def load(path):
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as file:
        files.ParseFromString(file.read())
    for file in files.file:
        pool.Add(file)
    return pool


class Generator:
    """Messages with every field, every oneof member and every enum value in turn, filled at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.turns = {}
        self.seen = set()

    def turn(self, what, choices):
        at = self.turns.get(what, 0)
        self.turns[what] = at + 1
        return choices[at % len(choices)]

    def scalar(self, field):
        kind = field.type
        if kind == field.TYPE_ENUM:
            numbers = [value.number for value in field.enum_type.values] + [9_999, -1]
            number = self.turn(field.full_name, numbers)
            self.seen.add(f"{field.enum_type.full_name}={number}")
            return number
        if kind == field.TYPE_STRING:
            return self.turn(field.full_name, STRINGS + [str(self.random.random())])
        if kind == field.TYPE_BOOL:
            return self.turn(field.full_name, [True, False])
        if kind == field.TYPE_FLOAT:
            return self.turn(field.full_name, FLOATS + [self.random.uniform(-1e6, 1e6)])
        if kind == field.TYPE_DOUBLE:
            return self.turn(field.full_name, DOUBLES + [self.random.uniform(-1e6, 1e6)])
        bits = {field.TYPE_INT32: 31, field.TYPE_INT64: 63}[kind]
        edges = [0, 1, -1, 2**bits - 1, -(2**bits)]
        return self.turn(field.full_name, edges + [self.random.randint(-1000, 1000)])

    def fill(self, message):
        if message.DESCRIPTOR.full_name == TIMESTAMP:
            message.seconds = self.turn("seconds", [0, 1_700_000_000, -62_135_596_800, 253_402_300_799, 1])
            message.nanos = self.turn("nanos", [0, 1, 1_000, 120_000_000, 999_999_999])
            return
        members = {oneof.name: self.turn(oneof.full_name, oneof.fields) for oneof in message.DESCRIPTOR.oneofs}
        for field in message.DESCRIPTOR.fields:
            chosen = field.containing_oneof is None or members[field.containing_oneof.name] is field
            if not chosen or (field.containing_oneof is None and self.random.random() < 0.15):
                continue
            self.seen.add(field.full_name)
            value = getattr(message, field.name)
            if field.message_type and field.message_type.GetOptions().map_entry:
                for _ in range(self.random.randint(0, 3)):
                    value[self.random.choice(STRINGS)] = self.random.choice(STRINGS)
            elif field.is_repeated and field.message_type:
                for _ in range(self.random.randint(0, 6)):
                    self.fill(value.add())
            elif field.is_repeated:
                value.extend(self.scalar(field) for _ in range(self.random.randint(0, 5)))
            elif field.message_type:
                value.SetInParent()
                self.fill(value)
            else:
                setattr(message, field.name, self.scalar(field))

    def payload(self, message):
        """Its bytes, some with fields that nobody knows, inside too."""
        self.fill(message)
        data = message.SerializeToString()
        if self.random.random() < 0.3:
            data += UNKNOWN
        if message.DESCRIPTOR.name == "Payload" and self.random.random() < 0.3:
            inner = b"\x08\x04" + UNKNOWN
            data += bytes([0x0A, len(inner)]) + inner
        return data


def nulls(descriptor, value):
    """json_format has no word for a message that is not set; the canonical form that consumers know says null."""
    if descriptor.full_name == TIMESTAMP or not isinstance(value, dict):
        return
    for field in descriptor.fields:
        inner = field.message_type
        if not inner or inner.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for one in value.get(field.json_name, []):
                nulls(inner, one)
        elif field.json_name in value:
            nulls(inner, value[field.json_name])
        elif not field.containing_oneof:
            value[field.json_name] = None


def same(one, other):
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return float(one) == float(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def receive(socket, found):
    while socket.poll(200):
        _, payload, metadata = socket.recv_multipart()
        found[json.loads(metadata)["txid"]] = payload


def main(descriptors, port, directory, vin, protobuf, json_endpoint, records, seed):
    pool = load(descriptors)
    classes = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in TYPES.items()}
    generator = Generator(seed)
    context = zmq.Context()
    sockets = []
    for endpoint in (protobuf, json_endpoint):
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        sockets.append(socket)
    tls = ssl.create_default_context(cafile=f"{directory}/server-ca.pem")
    tls.load_cert_chain(f"{directory}/vehicles/{vin}.pem", f"{directory}/vehicles/{vin}.key")
    own = b"vehicle_device." + vin.encode()
    forms = [{}, {}]
    sent = {}
    with connect(f"wss://localhost:{port}/", ssl=tls, max_size=None, proxy=None) as vehicle:

        def send(txid, name, payload):
            vehicle.send(envelope(txid.encode(), name.encode(), own, payload))
            assert answer(vehicle.recv(PATIENCE)) == ["ack", txid, name]

        # PUB sends to who is subscribed, which takes a moment.
        deadline = time.monotonic() + PATIENCE
        probe = 0
        while not all(any(txid.startswith("probe") for txid in form) for form in forms):
            assert time.monotonic() < deadline, "no subscription within its time"
            probe += 1
            send(f"probe-{probe}", "alerts", b"")
            for socket, form in zip(sockets, forms):
                receive(socket, form)
        for number in range(records):
            name = ["V", "V", "alerts", "errors", "connectivity"][number % 5]
            sent[f"record-{number}"] = name
            send(f"record-{number}", name, generator.payload(classes[name]()))
            for socket, form in zip(sockets, forms):
                receive(socket, form) if number % 50 == 49 else None
        deadline = time.monotonic() + PATIENCE
        while not all(sent.keys() <= form.keys() for form in forms) and time.monotonic() < deadline:
            for socket, form in zip(sockets, forms):
                receive(socket, form)
    result = {"same": 0, "different": [], "missing": 0, "unknown kept": 0}
    for txid, name in sent.items():
        if not all(txid in form for form in forms):
            result["missing"] += 1
            continue
        message = classes[name]()
        message.ParseFromString(forms[0][txid])
        result["unknown kept"] += UNKNOWN in forms[0][txid]
        expected = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
        nulls(message.DESCRIPTOR, expected)
        got = json.loads(forms[1][txid])
        if same(expected, got):
            result["same"] += 1
        elif len(result["different"]) < 3:
            result["different"].append([name, expected, got])
    every = set()
    todo = [pool.FindMessageTypeByName(full) for full in TYPES.values()]
    while todo:
        descriptor = todo.pop()
        if descriptor.full_name == TIMESTAMP or descriptor.GetOptions().map_entry:
            continue
        for field in descriptor.fields:
            every.add(field.full_name)
            if field.message_type:
                todo.append(field.message_type)
            if field.enum_type:
                every.update(f"{field.enum_type.full_name}={value.number}" for value in field.enum_type.values)
                every.add(f"{field.enum_type.full_name}=9999")
    result["never sent"] = sorted(every - generator.seen)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:2], int(sys.argv[2]), *sys.argv[3:7], int(sys.argv[7]), int(sys.argv[8]))
