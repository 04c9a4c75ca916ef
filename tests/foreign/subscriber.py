"""A ZMQ subscriber that shares no code with the gateway: libzmq.

Usage: subscriber.py ENDPOINT TOPIC [--summary] [--server KEY --public KEY --secret KEY]

Prints a line for each event on its connection, and one for each message: its frames in hex. With --summary, for floods:
how many messages there were, whenever that changed and nothing more waits.
"""

import argparse

import zmq
from zmq.utils.monitor import recv_monitor_message

arguments = argparse.ArgumentParser()
arguments.add_argument("endpoint")
arguments.add_argument("topic")
arguments.add_argument("--summary", action="store_true")
arguments.add_argument("--server")
arguments.add_argument("--public")
arguments.add_argument("--secret")
arguments = arguments.parse_args()

socket = zmq.Context().socket(zmq.SUB)
if arguments.server:
    socket.curve_serverkey = arguments.server.encode()
if arguments.public:
    socket.curve_publickey = arguments.public.encode()
    socket.curve_secretkey = arguments.secret.encode()
events = socket.get_monitor_socket()
socket.setsockopt(zmq.SUBSCRIBE, arguments.topic.encode())
socket.connect(arguments.endpoint)
poller = zmq.Poller()
poller.register(events, zmq.POLLIN)
poller.register(socket, zmq.POLLIN)
count, said = 0, 0
while True:
    ready = dict(poller.poll(10))
    if events in ready:
        event = zmq.Event(recv_monitor_message(events)["event"])
        print("EVENT", event.name, flush=True)
    if socket in ready:
        # Many at once, or asking for events would be most of the work.
        for _ in range(1000):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            count += 1
            if not arguments.summary:
                print("MESSAGE", *(frame.hex() or "-" for frame in frames), flush=True)
    elif arguments.summary and count != said:
        print("SUMMARY", count, flush=True)
        said = count
