"""One vehicle's session and two of its consumers: Google's FlatBuffers and protobuf libraries, a WebSocket client of the
Python world, libzmq and paho-mqtt.

Usage: session.py DESCRIPTORS PORT DIR VIN ZMQ_ENDPOINT MQTT_PORT

Prints one line of JSON: what was sent, and what each consumer has received, ZMQ's payloads decoded and in hex. Judges
nothing: that is the test's part.
"""

import json
import ssl
import sys
import threading
import time

import paho.mqtt.client as mqtt
import zmq
from google.protobuf import json_format, message_factory
from json_form import TYPES, load
from vehicle import PATIENCE, answer, envelope
from websockets.sync.client import connect

CONNECTION = "7f4b1c1e-6a0e-4d3b-9a53-0d5f9b8f2a11"
# Topics of one session: two connectivity records, eleven fields, an alert twice, an error.
EXPECTED_MQTT, EXPECTED_ZMQ = 2 + 11 + 2 + 1, 5


def datum(payload, fields, key, **value):
    one = payload.data.add()
    one.key = fields.values_by_name[key].number
    for name, content in value.items():
        if isinstance(content, dict):
            inner = getattr(one.value, name)
            inner.SetInParent()
            for part, of in content.items():
                setattr(inner, part, of)
        else:
            setattr(one.value, name, content)


def records(pool, classes):
    fields = pool.FindEnumTypeByName("telemetry.vehicle_data.Field")
    payload = classes["V"]()
    payload.created_at.FromSeconds(1_700_000_000)
    datum(payload, fields, "VehicleSpeed", string_value="6.55e1")
    datum(payload, fields, "Location", string_value="(37.412374 N, 122.145867 W)")
    datum(payload, fields, "Soc", float_value=0.1)
    datum(payload, fields, "Odometer", double_value=12345.678)
    datum(payload, fields, "Locked", boolean_value=True)
    datum(payload, fields, "Gear", shift_state_value=4)
    datum(payload, fields, "DoorState", door_value={"DriverFront": True})
    datum(payload, fields, "ChargeLimitSoc", invalid=True)
    datum(payload, fields, "ScheduledChargingStartTime", time_value={"hour": 7, "minute": 5, "second": 9})
    datum(payload, fields, "MilesToArrival", long_value=9_007_199_254_740_993)
    datum(payload, fields, "TpmsHardWarnings", tire_location_value={"front_left": True})
    alerts = classes["alerts"]()
    alert = alerts.alerts.add(name="APP_w048", audiences=[1, 3])
    # In milliseconds, as some vehicles have it.
    alert.started_at.seconds = 1_700_000_000_000
    errors = classes["errors"]()
    error = errors.errors.add(name="VcsecError", body="something", tags={"module": "vcsec"})
    error.created_at.FromSeconds(1_700_000_001)
    return {"V": payload, "alerts": alerts, "errors": errors}


def main(descriptors, port, directory, vin, endpoint, broker):
    pool = load(descriptors)
    classes = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in TYPES.items()}
    published, subscribed = [], threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _, __, message: published.append(
        [message.topic, message.payload.decode(), message.qos, message.retain]
    )
    client.connect("127.0.0.1", broker)
    client.subscribe(f"telemetry/{vin}/#", qos=1)
    client.loop_start()
    assert subscribed.wait(PATIENCE)
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"fleet_")
    socket.connect(endpoint)
    tls = ssl.create_default_context(cafile=f"{directory}/server-ca.pem")
    tls.load_cert_chain(f"{directory}/vehicles/{vin}.pem", f"{directory}/vehicles/{vin}.key")
    own = b"vehicle_device." + vin.encode()
    headers = {"Version": "2.0.0", "X-Network-Interface": "wifi", "X-TXID": CONNECTION}

    def connected(**more):
        return connect(f"wss://localhost:{port}/", ssl=tls, max_size=None, proxy=None, **more)

    # PUB sends to who is subscribed, which takes a moment: until a record of an unknown type comes through.
    deadline = time.monotonic() + PATIENCE
    with connected() as vehicle:
        number = 0
        while not socket.poll(100):
            assert time.monotonic() < deadline, "no subscription within its time"
            number += 1
            vehicle.send(envelope(f"probe-{number}".encode(), b"alerts", own, b""))
            assert answer(vehicle.recv(PATIENCE))[0] == "ack"
    while socket.poll(1000):
        socket.recv_multipart()
    published.clear()
    sent = records(pool, classes)
    with connected(additional_headers=headers) as vehicle:
        for name, message in sent.items():
            vehicle.send(envelope(f"tx-{name}".encode(), name.encode(), own, message.SerializeToString()))
            assert answer(vehicle.recv(PATIENCE)) == ["ack", f"tx-{name}", name]
    frames = []
    deadline = time.monotonic() + PATIENCE
    while (len(frames) < EXPECTED_ZMQ or len(published) < EXPECTED_MQTT) and time.monotonic() < deadline:
        if socket.poll(100):
            frames.append(socket.recv_multipart())
    # What should not be there would come now.
    while socket.poll(300):
        frames.append(socket.recv_multipart())
    client.loop_stop()
    received = []
    for topic, payload in frames:
        message = classes[topic.decode().removeprefix("fleet_")]()
        message.ParseFromString(payload)
        received.append([topic.decode(), json_format.MessageToDict(message), payload.hex()])
    print(json.dumps({"connection": CONNECTION, "zmq": received, "mqtt": published}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6]))
