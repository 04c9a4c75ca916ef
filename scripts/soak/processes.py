"""Child processes: started so that they end with this one, and waited for with a deadline.

Promises that no child is left, however the soak ends: `Children` kills on the way out, and the kernel kills them when
this process is killed. The kernel's promise holds for the thread that starts a child, so only the main thread may.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class SoakError(Exception):
    """Why the soak cannot go on; the message is all that is told."""


class Children:
    """All processes of a soak, and the folder of what they say."""

    def __init__(self, logs: Path):
        self.logs = logs
        self.running: list[subprocess.Popen] = []

    def start(self, name: str, command: list, reader: Callable[[str], None] | None = None) -> subprocess.Popen:
        """Starts a process. What it says goes to `NAME.log`; its output, line by line, to `reader` if there is one."""
        if threading.current_thread() is not threading.main_thread():
            raise AssertionError("only the main thread starts processes")
        full = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if reader else log, stderr=log
            )
        self.running.append(child)
        if reader:
            child.reading = threading.Thread(target=_read, args=(child.stdout, reader), daemon=True)
            child.reading.start()
        return child

    def run(self, name: str, command: list) -> str:
        """Runs a command to its end and returns its output; what fails is told with its last words."""
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise SoakError(f"{name} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def lines(self, name: str, command: list) -> Iterator[str]:
        """What a command puts out, line by line while it runs; an end with an error is one."""
        full = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        self.running.append(child)
        with child.stdout:
            for line in child.stdout:
                yield line.rstrip("\n")
        if self.end(child, 0) != 0:
            raise SoakError(f"{name} failed: {tail(self.logs / f'{name}.log')}")

    def end(self, child: subprocess.Popen, with_signal: int = signal.SIGKILL, within: float = 30) -> int:
        """Ends a child, reads what it still has to say, and returns its exit code."""
        if child.poll() is None:
            child.send_signal(with_signal)
        try:
            code = child.wait(within)
        except subprocess.TimeoutExpired:
            raise SoakError(f"{child.args[4]} did not end within {within:.0f} s of signal {int(with_signal)}") from None
        if hasattr(child, "reading"):
            child.reading.join(within)
        self.running.remove(child)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.running:
            if child.poll() is None:
                child.kill()
        for child in self.running:
            child.wait()


def _read(stream, reader):
    with stream:
        for line in stream:
            reader(line.decode(errors="replace").rstrip("\n"))


def wait_for(what: str, within: float, holds: Callable[[], object], every: float = 0.05):
    """Polls until something holds, and returns it."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() >= deadline:
            raise SoakError(f"not within {within:.0f} s: {what}")
        time.sleep(every)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def tail(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
