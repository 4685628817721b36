"""Conversations with boards that behave, and with boards and lines that do not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfedge.device import exchange
from bfedge.device.exchange import BoardRefusalError
from bfedge.device.protocol import Profile, Result, Stage
from bfedge.device.session import Session
from bfedge.errors import BfedgeError
from tests.boards import in_process, scripted
from tests.boards.in_process import InProcess
from tests.boards.scripted import IMAGE_BYTES, LOGITS, Board


class Clock:
    """In place of the module `time`: nobody waits, and yet time passes, a little with every look at the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-5
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module", autouse=True)
def clock() -> Iterator[None]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "time", clock)
        patch.setattr(in_process, "time", clock)
        yield


IMAGE = np.arange(IMAGE_BYTES, dtype=np.uint8).reshape(2, 2, 3)
SHORT = 0.4  # seconds


def session_with(board: Board, timeout: float = 20) -> Session:
    return Session(InProcess(board), timeout=timeout)


def ask_everything(session: Session) -> None:
    assert session.hello().board == "scripted"
    for case, tile in ((3, 4), (5, 0)):
        result = session.golden(case, tile)
        assert (result.case, result.tile, result.differing) == (case, tile, 0)
    _, logits = session.image(IMAGE, 4)
    assert logits.astype("<f4").tobytes() == LOGITS
    run, summary = session.profile(3, 4)
    assert [stage.stage for stage in run] == ["embed", *["attention", "experts"] * scripted.BLOCKS, "logits"]
    assert (summary.case, summary.tile) == (3, 4)


@pytest.mark.parametrize(
    "board",
    [
        scripted.Board,
        scripted.Chatty,
        scripted.DamagesOnce,
        scripted.LosesLineFeeds,
        scripted.LosesStage,
        scripted.GarblesTwice,
        scripted.Misreads,
        scripted.Stale,
        scripted.RestartsOnce,
    ],
)
def test_what_a_bad_line_does_is_put_right(board: type[Board]) -> None:
    ask_everything(session_with(board(), timeout=1.6))


def test_lost_answers_are_asked_for_again_before_the_time_is_over() -> None:
    board = scripted.LosesAnswers()
    ask_everything(session_with(board, timeout=1.6))
    assert board.commands.count("profile") == 2


def test_logits_keep_their_bits() -> None:
    words = [0x7F800001, 0xFFC00000, 0x80000000, 0x00000001]

    class Bits(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            said = super().answer(number, command, arguments)
            logits = "".join(f"{word:08x}" for word in words)
            crc = f"{zlib.crc32(struct.pack('<4I', *words)):08x}"
            return scripted.result(number, None, 0, logits=logits, crc32=crc) if command == "image" else said

    _, logits = session_with(Bits()).image(IMAGE)
    assert logits.dtype == np.float32
    assert logits.view(np.uint32).tolist() == words


def test_pixels_go_out_row_by_row() -> None:
    transport = InProcess(Board())
    Session(transport).image(IMAGE.transpose(1, 0, 2), 3)
    assert b" image 3 " + IMAGE.transpose(1, 0, 2).tobytes().hex().encode() + b" *" in transport.sent


def test_pixels_that_are_not_bytes_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="float32"):
        session_with(Board()).image(IMAGE.astype(np.float32), 0)  # type: ignore[arg-type]


def test_a_session_greets_by_itself_and_says_goodbye() -> None:
    transport = InProcess(Board())
    with Session(transport) as session:
        session.golden(0)
    assert transport.board.commands == ["hello", "golden", "quit"]
    assert transport.closed


def test_a_session_that_fails_only_closes() -> None:
    transport = InProcess(Board())
    session = Session(transport)
    session.hello()
    with pytest.raises(KeyError), session:
        raise KeyError
    assert transport.board.commands == ["hello"]
    assert transport.closed


def test_no_two_sessions_use_the_same_ids() -> None:
    first, second = InProcess(Board()), InProcess(Board())
    Session(first).hello()
    Session(second).hello()
    assert first.sent != second.sent


@pytest.mark.parametrize(
    ("board", "message", "hint"),
    [
        (scripted.Silent, r"this process says nothing \(0.4 s\)", "plug it in"),
        (scripted.OnlyStarts, "started the device program, which does not answer", "line from here to the board"),
        (scripted.BootLoop, r"restarted \d+ times", "power"),
        (scripted.Echo, "only echoes", "running on the board"),
        (scripted.Blink, r"does not speak bfedge's protocol; it says: LED on", "another program"),
        (scripted.WrongBaud, "no text: f8 80 00 fe e0", "baud rate"),
        (scripted.Busy, "is busy: it still answers", "reset the board"),
        (scripted.Newer, "speaks protocol 2, this bfedge speaks 1", "update bfedge"),
        (scripted.Older, "speaks protocol 0, this bfedge speaks 1", "build it again"),
        (scripted.OldCpu, "built for a newer CPU", "--target"),
    ],
)
def test_why_there_is_no_hello(board: type[Board], message: str, hint: str) -> None:
    with pytest.raises(BfedgeError, match=message) as problem:
        session_with(board(), SHORT).hello()
    assert hint in str(problem.value.hint)


def test_a_line_that_garbles_every_hello_is_named() -> None:
    class Garbler(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            return scripted.error(0, "garbled", "lost bytes")

    with pytest.raises(BoardRefusalError, match="answers `hello` with garbled: lost bytes") as problem:
        session_with(Garbler(), SHORT).hello()
    assert "cable" in str(problem.value.hint)


def test_what_the_board_calls_garbled_may_have_been_sent_long_ago() -> None:
    class Remembers(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            return scripted.error(0, "garbled") * 10 + super().answer(number, command, arguments)

    board = Remembers()
    ask_everything(session_with(board))
    assert board.commands.count("golden") == 2


@pytest.mark.parametrize(
    ("board", "message"),
    [
        (scripted.GarblesAlways, "answers `golden 3 0` with garbled: lost bytes"),
        (scripted.DamagesAlways, "`golden 3 0` or its answer was damaged on the way, 4 times"),
        (scripted.RestartsAlways, "restarts whenever it gets `golden 3 0`"),
    ],
)
def test_there_is_an_end_to_trying_again(board: type[Board], message: str) -> None:
    scripted_board = board()
    with pytest.raises(BfedgeError, match=message):
        session_with(scripted_board).golden(3)


def test_a_board_that_computes_too_long_is_given_up() -> None:
    session = session_with(scripted.Silenced(), SHORT)
    with pytest.raises(BfedgeError, match=r"did not answer `golden 3 0` within 0.4 s") as problem:
        session.golden(3)
    assert "--timeout" in str(problem.value.hint)


def test_logits_that_are_not_those_of_the_checksum_are_not_believed() -> None:
    with pytest.raises(BfedgeError, match=r"`image 0 0001.*not those of their checksum"):
        session_with(scripted.Miscounts()).image(IMAGE)


def answering(command: str, **lies: object) -> Session:
    """A board that answers `image` or `golden` with something else than it should."""

    class Lies(Board):
        def answer(self, number: int, asked: str, arguments: list[str]) -> bytes:
            said = super().answer(number, asked, arguments)
            members = {"number": number, "case": None if asked == "image" else 3, "tile": 0, **lies}
            return scripted.result(**members) if asked == command else said

    return session_with(Lies())


def with_logits(count: int) -> dict[str, str | None]:
    data = bytes(range(4 * count))
    words = "".join(f"{word:08x}" for word in struct.unpack(f"<{count}I", data))
    return {"logits": words or None, "crc32": f"{zlib.crc32(data):08x}"}


@pytest.mark.parametrize(
    ("count", "message"), [(0, "there are no logits"), *((n, f"there are {n} logits, its model has 4") for n in (3, 5))]
)
def test_another_number_of_logits_than_the_model_has_is_not_believed(count: int, message: str) -> None:
    with pytest.raises(BfedgeError, match=f"does not answer `image .* as it should, 4 times: {message}"):
        answering("image", **with_logits(count)).image(IMAGE)
    if count:
        with pytest.raises(BfedgeError, match=f"`golden 3 0` as it should, 4 times: {message}"):
            answering("golden", differing=1, first=0, **with_logits(count)).golden(3)


def test_logits_of_a_board_that_says_it_has_no_model_are_not_believed() -> None:
    class NoModel(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            said = super().answer(number, command, arguments)
            return scripted.hello(number, model=None) if command == "hello" else said

    with pytest.raises(BfedgeError, match="there are 4 logits, its model has 0 classes"):
        session_with(NoModel()).image(IMAGE)


Texts = st.text("0123456789abcdef", max_size=40)
Numbers = st.one_of(st.none(), st.integers(-1, 2**64), st.booleans(), Texts)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "logits": st.one_of(Numbers, st.integers(0, 9).map(lambda n: with_logits(n)["logits"])),
            "crc32": st.one_of(Numbers, st.integers(0, 9).map(lambda n: with_logits(n)["crc32"])),
            "tile": Numbers,
            "differing": Numbers,
            "first": Numbers,
            "ticks": Numbers,
            "case": Numbers,
        },
    )
)
def test_whatever_a_board_answers_there_are_as_many_logits_as_classes_or_an_error(lies: dict[str, object]) -> None:
    try:
        result, logits = answering("image", **lies).image(IMAGE)
    except BfedgeError:
        return
    assert logits.shape == (4,)
    assert result.crc32 == f"{zlib.crc32(logits.astype('<f4').tobytes()):08x}"


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("missing", [None, "embed", "attention", "experts", "logits"])
def test_only_all_stages_of_at_least_one_block_are_believed(blocks: int, missing: str | None) -> None:
    class Stages(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            if command != "profile":
                return super().answer(number, command, arguments)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scripted, "BLOCKS", blocks)
                said = scripted.stages(number)
            said = [text for text in said if missing is None or missing.encode() not in text]
            return b"".join(said) + scripted.summary(number, 3, 0)

    session = session_with(Stages())
    if blocks and missing is None:
        assert len(session.profile(3)[0]) == 2 + 2 * blocks
    else:
        with pytest.raises(BfedgeError, match=r"`profile 3 0` as it should, 4 times: stages are missing"):
            session.profile(3)


def test_stages_in_another_order_are_not_believed() -> None:
    class Swaps(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            said = super().answer(number, command, arguments)
            first, second, *rest = scripted.stages(number)
            return b"".join([second, first, *rest, scripted.summary(number, 3, 0)]) if command == "profile" else said

    with pytest.raises(BfedgeError, match="stages are missing"):
        session_with(Swaps()).profile(3)


def test_the_boards_own_errors_come_with_their_numbers() -> None:
    session = session_with(scripted.Refuses())
    with pytest.raises(
        BoardRefusalError, match=r"with memory: too little \(needed: 28672 bytes, available: 20000"
    ) as one:
        session.golden(0)
    assert (one.value.answer.needed, one.value.answer.available) == (28672, 20000)
    assert "smaller tile" in str(one.value.hint)
    with pytest.raises(BoardRefusalError, match="with no-model") as other:
        session.profile(0)
    assert other.value.answer.code == "no-model"


def test_a_board_that_goes_away_is_an_error_at_once() -> None:
    class Leaves(Board):
        def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
            said = super().answer(number, command, arguments)
            self.ended = command == "golden"
            return b"Guru Meditation Error\n" if self.ended else said

    with pytest.raises(BfedgeError, match="is gone") as problem:
        session_with(Leaves()).golden(0)
    assert problem.value.hint == "it said: Guru Meditation Error"


Damage = st.one_of(
    st.tuples(st.just("keep"), st.just(0), st.just(b"")),
    st.tuples(st.just("flip"), st.integers(0, 5000), st.just(b"")),
    st.tuples(st.just("cut"), st.integers(0, 5000), st.just(b"")),
    st.tuples(st.just("repeat"), st.integers(0, 3), st.just(b"")),
    st.tuples(st.just("insert"), st.integers(0, 5000), st.binary(max_size=30)),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(Damage, max_size=12))
def test_on_a_line_that_does_anything_answers_are_right_or_errors_are_clear(
    damages: list[tuple[str, int, bytes]],
) -> None:
    """Every piece that the board sends is damaged in a way of its own, and then the line is dead."""
    todo = list(damages)

    def damage(said: bytes) -> bytes:
        kind, place, noise = todo.pop(0) if todo else ("keep", 0, b"")
        place %= len(said) + 1
        if kind == "flip" and place < len(said):
            return said[:place] + bytes([said[place] ^ 1 << place % 8]) + said[place + 1 :]
        if kind == "cut":
            return said[:place]
        if kind == "insert":
            return said[:place] + noise + said[place:]
        return said * (place + 1) if kind == "repeat" else said

    session = Session(InProcess(Board(), damage, most=1000), timeout=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "HELLO_SECONDS", (0.01,))
        patch.setattr(exchange, "SOON_SECONDS", 0.001)
        try:
            result = session.golden(3, 4)
            run, summary = session.profile(3, 4)
        except BfedgeError:
            return
    assert isinstance(result, Result)
    assert (result.case, result.tile, result.crc32) == (3, 4, scripted.LOGITS_CRC)
    assert isinstance(summary, Profile)
    assert all(isinstance(stage, Stage) for stage in run)
    assert len(run) == 2 + 2 * scripted.BLOCKS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary()))
def test_a_board_that_says_anything_is_refused(pieces: list[bytes]) -> None:
    class Babbles(scripted.Silent):
        def take(self, text: bytes) -> bytes:
            self.ended = not pieces
            return pieces.pop() + b"\n" if pieces else b""

    with pytest.raises(BfedgeError):
        session_with(Babbles(), 0.02).hello()
