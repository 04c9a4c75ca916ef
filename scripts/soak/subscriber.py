"""A ZMQ subscriber, with libzmq: fast, or as slow as it is told to be.

Usage: subscriber.py ENDPOINT [SECONDS]

With SECONDS it rests so long after each message. Prints, once a second while messages come: how many there were, how
many of them came behind a later record, and the highest record's number. Run it with the Python of the tests'
environment.
"""

import json
import sys
import time

import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"")
socket.connect(sys.argv[1])
rest = float(sys.argv[2]) if len(sys.argv) > 2 else 0
count, behind, number, said = 0, 0, -1, (0.0, 0)
print("connected", flush=True)
while True:
    if socket.poll(200):
        topic, payload, metadata = socket.recv_multipart()
        record = int(json.loads(metadata)["record"].rsplit("-", 1)[1])
        count, behind, number = count + 1, behind + (record < number), max(record, number)
        time.sleep(rest)
    if count != said[1] and time.monotonic() > said[0] + 1:
        print(count, behind, number, sep="\t", flush=True)
        said = (time.monotonic(), count)
