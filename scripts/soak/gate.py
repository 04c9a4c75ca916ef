"""A TCP relay between the gateway and a broker that can be killed without losing what it has confirmed.

A broker without persistence that dies takes along what it confirmed and had not yet handed to its subscriber. That is
the broker's loss and not the gateway's, so before it is killed the gate is muted: the gateway hears no confirmation any
more, and what it was told before can be waited for at the subscriber. Closed, nobody listens.
"""

import socket
import threading


class Gate:
    """Leads from a port of its own, which stays the same, to another on this machine."""

    def __init__(self, port: int, behind: int):
        self.port, self.behind = port, behind
        self.speaks = threading.Event()
        self.server: socket.socket | None = None
        self.sockets: set[socket.socket] = set()
        self.lock = threading.Lock()

    def open(self):
        """Listens, and lets everything through."""
        self.speaks.set()
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()

    def mute(self):
        """From here on nothing comes back from behind."""
        self.speaks.clear()

    def close(self):
        """Ends every connection, and listens no more."""
        server, self.server = self.server, None
        if server:
            # Wakes who waits in accept, which closing alone does not.
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        with self.lock:
            ended, self.sockets = self.sockets, set()
        for one in ended:
            _shut(one)
        self.speaks.set()

    def _accept(self, server: socket.socket):
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.behind), 5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            with self.lock:
                if self.server is not server:
                    client.close()
                    broker.close()
                    return
                self.sockets |= {client, broker}
            for source, sink, answers in ((client, broker, False), (broker, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool):
        try:
            while data := source.recv(64 << 10):
                if answers:
                    self.speaks.wait()
                sink.sendall(data)
        except OSError:
            pass
        _shut(source)
        _shut(sink)
        with self.lock:
            self.sockets.discard(source)


def _shut(one: socket.socket):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
