"""Lines through the pipes of processes and through serial ports, and what is said when these break."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bfedge.device import transport as transport_module
from bfedge.device.compiler import TargetCompiler, compile_program, find_compiler, runtime_sources
from bfedge.device.session import Session
from bfedge.device.transport import MAX_LINE, LineSplitter, ProcessTransport, SerialTransport, shown
from bfedge.errors import BfedgeError
from bfedge.lowered import reference
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.boards import scripted
from tests.boards.scripted import Board
from tests.random_models import random_images, random_lowered
from tests.test_session import ask_everything

SCRIPT = str(Path(scripted.__file__))
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


def argv(board: type[Board]) -> list[str]:
    return [sys.executable, "-S", "-E", SCRIPT, board.__name__]


@contextlib.contextmanager
def process(board: type[Board]) -> Iterator[ProcessTransport]:
    transport = ProcessTransport(argv(board))
    try:
        yield transport
    finally:
        transport.close()
        assert transport.process.poll() is not None
        assert not any(thread.is_alive() for thread in transport.threads)


@pytest.mark.parametrize("board", [scripted.Board, scripted.Chatty, scripted.RestartsOnce, scripted.LongLineFirst])
def test_a_program_on_this_machine_is_a_board(board: type[Board]) -> None:
    with process(board) as transport, Session(transport, timeout=20) as session:
        ask_everything(session)


@pytest.mark.parametrize(
    ("board", "message", "hint"),
    [
        (scripted.Exits, r"^`python[\d.]*` ended with exit status 3: cannot read model.bfe$", None),
        (scripted.Crashes, r"^`python[\d.]*` was ended by SIGSEGV$", None),
        (
            scripted.NewerCpu,
            r"^`python[\d.]*` was built for a newer CPU than this one \(it ended with SIGILL\)$",
            "--target",
        ),
        (scripted.Usage, r"^`python[\d.]*` ended with exit status 0$", "it said: usage: other FILE"),
        pytest.param(
            scripted.ClosesOutput, "closed its output without ending$", None, marks=pytest.mark.slow, id="ClosesOutput"
        ),
        (scripted.LeavesChild, r"^`python[\d.]*` ended with exit status 4$", None),
    ],
)
def test_a_program_that_ends_is_explained_at_once(board: type[Board], message: str, hint: str | None) -> None:
    start = time.monotonic()
    with process(board) as transport, pytest.raises(BfedgeError, match=message) as problem:
        Session(transport).hello()
    assert time.monotonic() - start < 15  # the time-out is 30
    assert hint in (problem.value.hint, None) or hint in str(problem.value.hint)


def test_who_opens_a_program_may_explain_its_end() -> None:
    def explain(code: int, stderr: str) -> BfedgeError:
        return BfedgeError(f"code {code}, last words {stderr.split()[-1]}")

    transport = ProcessTransport(argv(scripted.Exits), explain=explain)
    with pytest.raises(BfedgeError, match=r"^code 3, last words model.bfe$"), Session(transport) as session:
        session.hello()


@pytest.mark.slow
@pytest.mark.parametrize("board", [scripted.Floods, scripted.NeverEndsItsLine])
def test_a_flood_is_given_up_and_takes_no_memory(board: type[Board]) -> None:
    with process(board) as transport:
        with pytest.raises(BfedgeError, match="says"):
            Session(transport, timeout=1).hello()
        time.sleep(0.5)
        with transport.changed:
            assert sum(len(line) + 1 for line in transport.lines) == transport.waiting <= transport_module.MAX_WAITING


def test_a_program_that_does_not_read_cannot_hold_up_the_sender() -> None:
    with process(scripted.Deaf) as transport:
        start = time.monotonic()
        transport.write(b"x" * 10_000_000)
        assert time.monotonic() - start < 1
        assert transport.read_line(0.1) is None
        assert transport.gone() is None
        with pytest.raises(BfedgeError, match="says nothing"):
            Session(transport, timeout=0.3).hello()


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps (Debian: procps)")
def test_what_a_program_has_started_ends_with_it() -> None:
    code = "import subprocess as s; p = s.Popen(['sleep', '1000']); print(p.pid, flush=True); p.wait()"
    transport = ProcessTransport([sys.executable, "-c", code])
    child = transport.read_line(20)
    assert child is not None
    transport.close()
    transport.close()
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "state=", "-p", child.decode()], capture_output=True, text=True).stdout
        if state.strip() in ("", "Z"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")


def test_programs_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(BfedgeError, match="cannot start `/nowhere/bfedge-device`: No such file"):
        ProcessTransport(["/nowhere/bfedge-device"])
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF nonsense")
    other.chmod(0o755)
    with pytest.raises(BfedgeError, match="no program for this machine") as problem:
        ProcessTransport([str(other)])
    assert "--emulate" in str(problem.value.hint)


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    splitter = LineSplitter()
    text = b"one\r\n\n\xfftwo\0\nthree"
    assert [found for byte in text for found in splitter.feed(bytes([byte]))] == [b"one\r", b"", b"\xfftwo\0"]
    assert splitter.feed(b"\nfour\n") == [b"three", b"four"]


def test_a_line_that_is_too_long_is_dropped_and_the_next_one_is_whole() -> None:
    splitter = LineSplitter()
    for _ in range(5):
        assert splitter.feed(b"x" * (MAX_LINE // 2 + 1)) == []
        assert len(splitter.begun) <= MAX_LINE
    assert splitter.feed(b"x\nnext\n") == [b"next"]
    assert splitter.feed(b"y" * MAX_LINE + b"\n") == [b"y" * MAX_LINE]


def test_what_boards_say_cannot_steer_the_terminal() -> None:
    assert shown(b"\0\x1b[0;32mI (3) main: ok\x1b[0m\r\n") == "I (3) main: ok"
    assert shown(b"\x1b]0;title\x07") == "?]0;title?"
    assert len(shown(b"x" * 1000)) == 100


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real device program, for this machine."""
    program = tmp_path_factory.mktemp("device") / "bfedge-device"
    compile_program(TargetCompiler(find_compiler()), runtime_sources(), program, "host")
    return program


@pytest.mark.parametrize("seed", range(3))
def test_the_device_program_answers_with_the_references_bits(device: Path, tmp_path: Path, seed: int) -> None:
    model = random_lowered(seed)
    images = random_images(model, 3, seed)
    packed = tmp_path / "model.bfe"
    packed.write_bytes(pack(model, golden_vectors(model, images)))
    with Session(ProcessTransport([str(device), str(packed)])) as session:
        greeting = session.hello()
        assert greeting.model is not None
        assert (greeting.model.bytes, greeting.model.golden) == (packed.stat().st_size, 3)
        for case, expected in enumerate(reference.run(model, images)):
            assert session.golden(case, case).differing == 0
            result, logits = session.image(images[case], case)
            assert logits.tobytes() == expected.tobytes()
            stages, summary = session.profile(case, case)
            assert stages[-1].crc32 == summary.crc32 == result.crc32
        with pytest.raises(BfedgeError, match="`golden 3 0` with bad-argument: there is no such golden case"):
            session.golden(3)
        with pytest.raises(BfedgeError, match="with bad-argument: the pixels"):
            session.image(images[0].reshape(-1)[1:], 0)


def test_the_device_program_says_why_it_refuses_a_model(device: Path, tmp_path: Path) -> None:
    packed = tmp_path / "model.bfe"
    packed.write_bytes(pack(random_lowered(1))[:-16])
    with Session(ProcessTransport([str(device), str(packed)])) as session:
        greeting = session.hello()
        assert greeting.model is None
        assert greeting.refused is not None
        assert greeting.refused.status == "truncated"
        with pytest.raises(BfedgeError, match="with no-model: truncated"):
            session.golden(0)


class Wire:
    """A board at the far end of two functions, served by a thread until the end is closed."""

    def __init__(self, board: Board, read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
        self.board = board
        self.thread = threading.Thread(target=self.serve, args=(read, write), daemon=True)
        self.thread.start()

    def serve(self, read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
        splitter = LineSplitter()
        with contextlib.suppress(OSError):
            write(self.board.start())
            while data := read():
                for text in splitter.feed(data):
                    write(self.board.take(text + b"\n"))


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the file descriptor of the board's end, and the name of the port."""
    import tty

    board_end, port_end = os.openpty()
    tty.setraw(port_end)
    yield board_end, os.ttyname(port_end)
    os.close(port_end)
    with contextlib.suppress(OSError):
        os.close(board_end)


@posix_only
@pytest.mark.parametrize("board", [scripted.Board, scripted.Chatty, scripted.DamagesOnce])
def test_a_board_on_a_serial_port(board: type[Board], terminal: tuple[int, str]) -> None:
    end, port = terminal
    Wire(board(), lambda: os.read(end, 4096), lambda data: os.write(end, data))
    with Session(SerialTransport(port), timeout=20) as session:
        ask_everything(session)


@posix_only
def test_a_board_that_is_unplugged(terminal: tuple[int, str]) -> None:
    end, port = terminal
    with contextlib.closing(SerialTransport(port)) as transport:
        threading.Timer(0.3, os.close, (end,)).start()
        with pytest.raises(BfedgeError, match=f"connection to board on {port} was lost|the board on {port}") as problem:
            Session(transport).hello()
        assert "unplugged" in str(problem.value.hint)


@posix_only
def test_a_board_that_takes_no_bytes(terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "WRITE_SECONDS", 0.2)
    with contextlib.closing(SerialTransport(terminal[1])) as transport:
        transport.write(b"x" * 1_000_000)
        assert transport.read_line(10) is None
        assert "takes no bytes any more" in str(transport.gone())


@posix_only
def test_a_port_that_another_program_has_opened_is_busy(terminal: tuple[int, str]) -> None:
    with contextlib.closing(SerialTransport(terminal[1])):
        with pytest.raises(BfedgeError, match=f"the port {terminal[1]} is busy") as problem:
            SerialTransport(terminal[1])
        assert "serial monitor" in str(problem.value.hint)


@posix_only
def test_a_port_without_permission(terminal: tuple[int, str]) -> None:
    port, is_root = terminal[1], os.geteuid() == 0
    os.chmod(port, 0)
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(BfedgeError, match=f"no permission to open the port {port}") as problem:
            SerialTransport(port)
    finally:
        if is_root:
            os.seteuid(0)
    assert "dialout" in str(problem.value.hint)


def test_a_port_that_is_not_there_gives_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports, list_ports_common

    found = list_ports_common.ListPortInfo("/dev/ttyACM7", skip_link_detection=True)
    found.description = "Nano 33 BLE"
    monkeypatch.setattr(list_ports, "comports", lambda: [found])
    with pytest.raises(BfedgeError, match="there is no port /dev/ttyNOT") as problem:
        SerialTransport("/dev/ttyNOT")
    assert problem.value.hint == "the ports are: /dev/ttyACM7 (Nano 33 BLE)"
    monkeypatch.setattr(list_ports, "comports", lambda: [])
    with pytest.raises(BfedgeError, match="no port") as problem:
        SerialTransport("/dev/ttyNOT")
    assert "plugged in" in str(problem.value.hint)


@pytest.mark.parametrize(
    ("port", "baud", "message"),
    [
        ("nonsense://x", 115200, "cannot open the port nonsense://x at 115200 baud"),
        ("socket://no-port", 115200, "`socket://no-port` does not say which TCP port"),
        ("rfc2217://board", 115200, "`rfc2217://board` does not say which TCP port"),
        ("socket://board:99999", 115200, "`socket://board:99999` is no address: Port out of range"),
        ("socket://board:http", 115200, "`socket://board:http` is no address: Port could not be cast"),
        ("/dev/null", 115200, "cannot open the port /dev/null"),
    ],
)
def test_ports_that_are_none(port: str, baud: int, message: str) -> None:
    with pytest.raises(BfedgeError, match=message):
        SerialTransport(port, baud)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def url_of(server: socket.socket) -> str:
    return f"socket://127.0.0.1:{server.getsockname()[1]}"


def test_a_board_behind_a_socket(server: socket.socket) -> None:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            Wire(scripted.Chatty(), lambda: connection.recv(4096), connection.sendall).thread.join()

    thread = threading.Thread(target=serve)
    thread.start()
    with Session(SerialTransport(url_of(server)), timeout=20) as session:
        ask_everything(session)
    thread.join()


@pytest.mark.filterwarnings("ignore:set.*() is deprecated:DeprecationWarning")  # in pyserial
def test_a_board_behind_an_rfc2217_server(server: socket.socket) -> None:
    import serial
    from serial.rfc2217 import PortManager

    class Connection:
        def __init__(self, link: socket.socket) -> None:
            self.write = link.sendall

    def serve() -> None:
        link, _ = server.accept()
        with link, serial.serial_for_url("loop://") as settings:
            manager = PortManager(settings, Connection(link))

            def read() -> bytes:
                while raw := link.recv(4096):
                    if text := b"".join(manager.filter(raw)):
                        return text
                return b""

            def write(text: bytes) -> None:
                link.sendall(b"".join(manager.escape(text)))

            Wire(scripted.Chatty(), read, write).thread.join()

    thread = threading.Thread(target=serve)
    thread.start()
    with Session(SerialTransport(url_of(server).replace("socket", "rfc2217")), timeout=20) as session:
        ask_everything(session)
    thread.join()


def test_a_socket_that_is_closed_in_the_middle(server: socket.socket) -> None:
    def serve() -> None:
        connection, _ = server.accept()
        connection.recv(1)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    transport = SerialTransport(url_of(server))
    with (
        pytest.raises(BfedgeError, match=r"the connection to the board on socket://.* was lost"),
        Session(transport) as session,
    ):
        session.hello()
    thread.join()


def test_a_socket_that_nobody_serves(server: socket.socket) -> None:
    url = url_of(server)
    server.close()
    with pytest.raises(BfedgeError, match=f"cannot connect to {url}") as problem:
        SerialTransport(url)
    assert "server running" in str(problem.value.hint)


def test_without_pyserial_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(BfedgeError, match="pyserial") as problem:
        SerialTransport("/dev/ttyACM0")
    assert "pip install" in str(problem.value.hint)
