"""The upstream: mosquitto with a subscriber of its own, and Kafka on one node (KRaft), killed, stopped, started again.

Each keeps its ports and its folder over its lives. Kafka keeps its log; mosquitto keeps nothing, so a subscriber is
there before the gateway can reach it again, and what the subscriber had before is in a file.
"""

import signal
import threading
from pathlib import Path

from .gate import Gate
from .processes import Children, free_port, listens, wait_for

TOPIC_BASE = "telemetry"
NAMESPACE = "tesla_telemetry"
TYPES = ("V", "alerts", "errors", "connectivity")
CLUSTER = "d2F5c3RhdGlvbi1zb2FrIQ"
START = 120


class Mosquitto:
    """A broker behind a gate, and the file of what its subscriber received: a record's number and txid in each line."""

    def __init__(self, children: Children, folder: Path):
        self.children = children
        self.port = free_port()
        self.gate = Gate(free_port(), self.port)
        self.config = folder / "mosquitto.conf"
        # With another user than the one that starts it, the kernel would forget to end it with us.
        self.config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 200\nlog_type error\n"
        )
        self.received = folder / "mqtt-received.tsv"
        self.lock = threading.Lock()
        self.output = open(self.received, "w", buffering=1 << 16)
        self.highest = -1
        self.broker = self.subscriber = None

    def start(self):
        self.broker = self.children.start("mosquitto", ["mosquitto", "-c", self.config])
        wait_for("mosquitto listens", START, lambda: listens(self.port))
        subscribed = threading.Event()

        def line(text: str):
            if text.startswith("Subscribed"):
                subscribed.set()
            elif text.startswith("MESSAGE\t"):
                self._take(text)

        # Into a pipe, what it says would come in blocks.
        command = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", self.port, "-V", "5", "-q", "1", "-d"]
        command += ["-t", f"{TOPIC_BASE}/#", "-F", "MESSAGE\t%t\t%P"]
        self.subscriber = self.children.start("mosquitto_sub", command, line)
        wait_for("mosquitto_sub has subscribed", START, subscribed.is_set)
        self.gate.open()

    def _take(self, line: str):
        _, topic, properties = line.split("\t", 2)
        # What gateways say of themselves.
        if topic.startswith(f"{TOPIC_BASE}/waystation/"):
            return
        named = dict(part.split(":", 1) for part in properties.split(" ") if ":" in part)
        with self.lock:
            self.highest = max(self.highest, int(named["record"].rsplit("-", 1)[1]))
            self.output.write(f"{named['record']}\t{named['txid']}\n")

    def kill(self, confirmed):
        """SIGKILL, once the subscriber has every record that the gateway was told of; `confirmed` says up to which."""
        self.gate.mute()
        wait_for("the subscriber has what is confirmed", 60, lambda: self.highest >= confirmed() - 1)
        # Both at once, or the subscriber would connect to the next one by itself.
        self.children.end(self.subscriber)
        self.children.end(self.broker)
        self.gate.close()

    def stop(self):
        self.broker.send_signal(signal.SIGSTOP)

    def resume(self):
        self.broker.send_signal(signal.SIGCONT)

    def arrivals(self):
        """The transaction ids in the order of their arrival."""
        with self.lock:
            self.output.flush()
        with open(self.received) as file:
            for line in file:
                yield "", line.rstrip("\n").split("\t")[1]


class Kafka:
    """One node that is controller and broker."""

    def __init__(self, children: Children, folder: Path, libraries: Path):
        self.children = children
        self.port, controller = free_port(), free_port()
        self.log = children.logs / "kafka.log"
        # A broker that is killed leaves the libraries there that it has unpacked.
        self.java = ["java", f"-Djava.io.tmpdir={folder}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        self.java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-cp", libraries / "*"]
        self.config = folder / "kafka.properties"
        self.config.write_text(
            "process.roles=broker,controller\nnode.id=0\n"
            f"controller.quorum.voters=0@127.0.0.1:{controller}\n"
            f"listeners=CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{self.port}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}\n"
            "controller.listener.names=CONTROLLER\n"
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
            f"log.dirs={folder / 'kafka-data'}\n"
            "auto.create.topics.enable=false\nnum.network.threads=2\nnum.io.threads=2\nlog.cleaner.enable=false\n"
            "log.retention.ms=-1\noffsets.topic.replication.factor=1\n"
        )
        tool = [*self.java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.config]
        children.run("Kafka's format", tool)
        self.broker = None

    def start(self):
        """Starts it and waits until it serves."""
        said = self.log.stat().st_size if self.log.exists() else 0
        self.broker = self.children.start("kafka", [*self.java, "-Xmx384m", "kafka.Kafka", self.config])

        def serves():
            with open(self.log, errors="replace") as file:
                file.seek(said)
                return "Kafka Server started" in file.read()

        wait_for(f"Kafka starts; see {self.log}", START, serves, every=0.2)

    def create_topics(self):
        for name in TYPES:
            tool = [*self.java, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", f"127.0.0.1:{self.port}"]
            tool += ["--create", "--topic", f"{NAMESPACE}_{name}", "--partitions", 4, "--replication-factor", 1]
            self.children.run("Kafka's topics", tool)

    def kill(self):
        self.children.end(self.broker)

    def stop(self):
        self.broker.send_signal(signal.SIGSTOP)

    def resume(self):
        self.broker.send_signal(signal.SIGCONT)

    def arrivals(self):
        """Topic and transaction id of everything in its topics, of each partition in its order, as kcat reads it."""
        for name in TYPES:
            topic = f"{NAMESPACE}_{name}"
            command = ["kcat", "-b", f"127.0.0.1:{self.port}", "-C", "-q", "-e", "-o", "beginning", "-t", topic]
            for line in self.children.lines("kcat", [*command, "-f", "%h\\n"]):
                headers = dict(header.split("=", 1) for header in line.split(","))
                yield topic, headers["txid"]
