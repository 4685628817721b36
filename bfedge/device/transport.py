"""What carries the lines between host and board: the pipes of a process (a local program, an emulator, ssh), or a
serial port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from bfedge.errors import BfedgeError

MAX_LINE = 1 << 20
"""Bytes; longer lines are dropped"""
MAX_WAITING = 4 << 20
"""Bytes of lines that nobody has read yet; beyond it the oldest are dropped, so that a flood costs no memory"""
STDERR_BYTES = 16384
CLOSING_SECONDS = 2.0
"""A process has this long to end by itself"""
POLL_SECONDS = 0.1
WRITE_SECONDS = 20.0
"""A serial port has this long to take 1024 bytes"""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Explain = Callable[[int, str], BfedgeError]
"""What it means that a process ended: from its return code (negative: the signal) and the end of its stderr"""


class Transport(Protocol):
    if_silent: str
    """What the user can look at when nothing comes"""

    def describe(self) -> str:
        """The other end, as messages name it: `the board on /dev/ttyACM0`."""

    def write(self, data: bytes) -> None:
        """Sends bytes. Raises nothing if the other end has gone; `gone` says that."""

    def read_line(self, timeout: float) -> bytes | None:
        """The next line; None if there is none within `timeout` seconds, or none any more."""

    def gone(self) -> BfedgeError | None:
        """Why no more lines will come; None while they may."""

    def close(self) -> None:
        """Ends the connection; may be called again."""


class LineSplitter:
    """Cuts a stream of bytes into lines, at most MAX_LINE bytes long."""

    def __init__(self) -> None:
        self.begun = bytearray()
        self.too_long = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their line feeds."""
        lines = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            self.extend(end)
            if not self.too_long:
                lines.append(bytes(self.begun))
            self.begun.clear()
            self.too_long = False
        self.extend(rest)
        return lines

    def extend(self, data: bytes) -> None:
        if len(self.begun) + len(data) > MAX_LINE:
            self.too_long = True
        if self.too_long:
            self.begun.clear()
        else:
            self.begun += data


class ProcessTransport:
    """A process that speaks on its stdin and stdout. Raises BfedgeError if it cannot be started."""

    def __init__(self, argv: Sequence[str], what: str | None = None, explain: Explain | None = None) -> None:
        self.name = Path(argv[0]).name
        self.what = what or f"the program `{self.name}`"
        self.if_silent = "is it a device program? a slow machine may need a longer --timeout"
        self.explain = explain or (lambda code, stderr: explain_ending(self.name, code, stderr))
        try:
            # A session of its own: what the process starts ends with it, and Ctrl-C reaches bfedge alone.
            self.process = subprocess.Popen(
                list(argv),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as problem:
            raise cannot_start(argv[0], problem) from None
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self.outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.lines: deque[bytes] = deque()
        self.waiting = 0
        self.changed = threading.Condition()
        self.ended = False
        self.ended_at: float | None = None
        self.stderr = b""
        # Threads and not select, which does not know pipes on Windows. None of them ever waits for another.
        self.threads = [
            threading.Thread(target=work, args=(stream,), daemon=True)
            for work, stream in (
                (self.send, stdin),
                (self.collect_lines, stdout),
                (self.collect_stderr, stderr),
            )
        ]
        for thread in self.threads:
            thread.start()

    def describe(self) -> str:
        return self.what

    def write(self, data: bytes) -> None:
        self.outgoing.put(data)

    def send(self, stdin: IO[bytes]) -> None:
        with contextlib.suppress(OSError), stdin:  # the process has ended: `gone` says so
            while (data := self.outgoing.get()) is not None:
                while data:
                    data = data[stdin.write(data) :]

    def collect_lines(self, stdout: IO[bytes]) -> None:
        splitter = LineSplitter()
        with stdout:
            while data := stdout.read(65536):
                lines = splitter.feed(data)
                with self.changed:
                    self.lines.extend(lines)
                    self.waiting += sum(map(len, lines)) + len(lines)
                    while self.waiting > MAX_WAITING:
                        self.waiting -= len(self.lines.popleft()) + 1
                    self.changed.notify()
        with self.changed:
            self.ended = True
            self.changed.notify()

    def collect_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            while data := stderr.read(65536):
                self.stderr = (self.stderr + data)[-STDERR_BYTES:]

    def read_line(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        with self.changed:
            while not self.lines:
                left = deadline - time.monotonic()
                if left <= 0 or self.ended or self.has_left_its_pipe():
                    return None
                self.changed.wait(min(left, POLL_SECONDS))
            line = self.lines.popleft()
            self.waiting -= len(line) + 1
            return line

    def has_left_its_pipe(self) -> bool:
        """Whether the process ended a while ago, though something that it started still holds its stdout."""
        if self.process.poll() is None:
            return False
        self.ended_at = self.ended_at or time.monotonic()
        return time.monotonic() - self.ended_at > 5 * POLL_SECONDS

    def gone(self) -> BfedgeError | None:
        with self.changed:
            if self.lines or not (self.ended or self.has_left_its_pipe()):
                return None
        try:
            code = self.process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return BfedgeError(f"{self.what} closed its output without ending")
        self.threads[2].join(CLOSING_SECONDS)
        return self.explain(code, self.stderr.decode(errors="replace"))

    def close(self) -> None:
        """Closes stdin, which ends a device program that is not busy, and kills what does not end."""
        self.outgoing.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSING_SECONDS)
        self.threads[1].join(POLL_SECONDS)
        if self.process.poll() is None or not self.ended:
            kill_group(self.process)
        for thread in self.threads:
            thread.join(CLOSING_SECONDS)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that leads a session, and what it started in it."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def cannot_start(program: str, problem: OSError) -> BfedgeError:
    if problem.errno == errno.ENOEXEC:
        return BfedgeError(f"`{program}` is no program for this machine", "a board's program runs with --emulate")
    return BfedgeError(f"cannot start `{program}`: {problem.strerror}")


def explain_ending(name: str, code: int, stderr: str) -> BfedgeError:
    """What to say about a process that ended though it was still needed.

    `code` is as `subprocess` gives it, or 128 and the signal, as shells do.
    """
    number = -code if code < 0 else code - 128
    known = {s.value: s.name for s in signal.Signals}
    if known.get(number) == "SIGILL":
        return BfedgeError(
            f"`{name}` was built for a newer CPU than this one (it ended with SIGILL)",
            "build it for this board's own --target",
        )
    how = f"was ended by {known[number]}" if number in known else f"ended with exit status {code}"
    words = last_line(stderr)
    return BfedgeError(f"`{name}` {how}" + (f": {words}" if words else ""))


def last_line(text: str) -> str:
    """The last line that has words, fit for a terminal."""
    lines = [shown(line.encode()) for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def shown(line: bytes) -> str:
    """Bytes as text for a terminal: at most 100 printable characters."""
    text = COLOURS.sub("", line.decode(errors="replace").replace("\0", "")).strip()
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 100 else text[:97] + "..."


class SerialTransport:
    """A serial port, or what pyserial opens by an URL (`socket://host:port`, `rfc2217://host:port`).

    The port is locked against a second bfedge. DTR and RTS stay asserted, both, as the system sets them on opening:
    boards on USB send nothing without DTR, and the circuit that resets an ESP32 or holds it in its bootloader does so
    only while the two differ. Boards that reset at any edge of DTR start the program anew.

    Raises BfedgeError if the port cannot be opened.
    """

    def __init__(self, port: str, baud: int = 115200) -> None:
        try:
            import serial
        except ImportError:
            raise BfedgeError("serial ports need pyserial", "pip install 'bfedge[devices]'") from None
        check_address(port)
        self.what = f"the board on {port}"
        self.if_silent = f"is the device program running, and are the port and the baud rate ({baud}) right?"
        self.splitter = LineSplitter()
        self.lines: deque[bytes] = deque()
        self.lost: BfedgeError | None = None
        patience = None if port.startswith("rfc2217:") else WRITE_SECONDS  # pyserial has none there
        try:
            self.port: Any = serial.serial_for_url(
                port, baud, timeout=POLL_SECONDS, write_timeout=patience, exclusive=True
            )
        except Exception as problem:  # besides its own, pyserial passes on those of termios and of URL handlers
            raise cannot_open(port, baud, problem) from None

    def describe(self) -> str:
        return self.what

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), 1024):
            try:
                self.port.write(data[start : start + 1024])
                self.receive(self.port.in_waiting)  # what a board sends meanwhile must not fill the system's buffer
            except OSError as problem:
                self.lose(problem)
                return

    def receive(self, count: int) -> None:
        if count:
            self.lines.extend(self.splitter.feed(self.port.read(count)))

    def read_line(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        while not self.lines and not self.lost and time.monotonic() < deadline:
            try:
                self.receive(max(1, self.port.in_waiting))
            except OSError as problem:
                self.lose(problem)
        return self.lines.popleft() if self.lines else None

    def lose(self, problem: OSError) -> None:
        from serial import SerialTimeoutException

        if isinstance(problem, SerialTimeoutException):
            message = f"{self.what} takes no bytes any more ({WRITE_SECONDS:g} s)"
            self.lost = BfedgeError(message, "unplug it and plug it in again")
        else:
            message = f"the connection to {self.what} was lost: {problem}"
            self.lost = BfedgeError(message, "was it unplugged, or does another program read from the port?")

    def gone(self) -> BfedgeError | None:
        return None if self.lines else self.lost

    def close(self) -> None:
        connection = getattr(self.port, "_socket", None)  # pyserial leaks one whose other end was closed first
        with contextlib.suppress(OSError):
            self.port.close()
        if connection is not None:
            connection.close()


def check_address(port: str) -> None:
    """Raises BfedgeError for an address of the network without a valid number of a TCP port, of which pyserial says
    nothing that helps.
    """
    if not port.startswith(("socket://", "rfc2217://")):
        return
    try:
        number = urlsplit(port).port
    except ValueError as problem:
        raise BfedgeError(f"`{port}` is no address: {problem}", "write socket://host:number") from None
    if number is None:
        raise BfedgeError(f"`{port}` does not say which TCP port", "write socket://host:number")


def cannot_open(port: str, baud: int, problem: Exception) -> BfedgeError:
    number = getattr(problem, "errno", None)
    text = str(problem)
    if isinstance(problem, ValueError | OverflowError):
        return BfedgeError(f"cannot open the port {port} at {baud} baud: {text}")
    if "://" in port:
        return BfedgeError(f"cannot connect to {port}: {text}", "is the server running, and is the address right?")
    if number == errno.ENOENT or "FileNotFoundError" in text:
        return BfedgeError(f"there is no port {port}", existing_ports())
    if number in (errno.EAGAIN, errno.EBUSY) or (os.name == "nt" and "PermissionError" in text):
        return BfedgeError(f"the port {port} is busy: another program has opened it", "close its serial monitor")
    if number in (errno.EACCES, errno.EPERM):
        return BfedgeError(
            f"no permission to open the port {port}",
            "`sudo usermod -aG dialout $USER` and a new login give it (on Arch Linux the group is `uucp`)",
        )
    return BfedgeError(f"cannot open the port {port}: {text}")


def existing_ports() -> str:
    from serial.tools import list_ports

    ports = sorted(f"{p.device} ({p.description})" for p in list_ports.comports())
    return "the ports are: " + ", ".join(ports) if ports else "there is none at all: is the board plugged in?"
