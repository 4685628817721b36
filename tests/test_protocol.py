"""The lines of the protocol: what is an answer, what is noise, and what is an answer that is wrong."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfedge.device.protocol import (
    Answer,
    Bye,
    Clock,
    Error,
    Hello,
    Profile,
    Ready,
    Result,
    Stage,
    command_line,
    looks_damaged,
    parse_answer,
)
from bfedge.errors import BfedgeError
from tests.boards import scripted
from tests.boards.scripted import LOGITS_CRC, hello, line, result, stages, summary

HONEST = {
    "ready": line(0, "ready"),
    "hello": hello(7),
    "result": result(7, 3, 4),
    "image": result(7, None, 4),
    "stage": stages(7)[1],
    "profile": summary(7, 3, 4),
    "bye": line(7, "bye"),
    "error": scripted.error(7, "memory", needed=2, available=None),
}


def changed(text: bytes, path: str, value: Any = KeyError) -> bytes:
    """The answer with one member set to `value`, or without it; the checksum is right."""
    members = json.loads(text)
    del members["check"]
    *folders, name = path.split(".")
    place = members
    for folder in folders:
        place = place[folder]
    if value is KeyError:
        del place[name]
    else:
        place[name] = value
    return line(members.pop("id"), members.pop("type"), version=members.pop("bfedge"), **members)


def test_commands_are_as_the_protocol_document_has_them() -> None:
    text = command_line(7, "golden", 3, 0)
    assert text == b"7 golden 3 0 *%08x\n" % zlib.crc32(b"7 golden 3 0 ")
    assert command_line(1, "hello") == b"1 hello *bfbbed43\n"


def test_every_answer_is_understood() -> None:
    kinds = {name: type(parse_answer(text)) for name, text in HONEST.items()}
    assert kinds == {
        "ready": Ready,
        "hello": Hello,
        "result": Result,
        "image": Result,
        "stage": Stage,
        "profile": Profile,
        "bye": Bye,
        "error": Error,
    }
    greeting = parse_answer(HONEST["hello"])
    assert isinstance(greeting, Hello)
    assert greeting.id == 7
    assert greeting.clock == Clock("cycles", 64000000)
    assert greeting.model is not None
    assert greeting.model.input == scripted.IMAGE_BYTES
    case = parse_answer(HONEST["result"])
    assert isinstance(case, Result)
    assert (case.case, case.tile, case.differing, case.crc32, case.ticks) == (3, 4, 0, LOGITS_CRC, 1000)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("hello", p) for p in ("clock", "clock.hz", "model", "memory.available", "memory.free", "stack.bytes")),
        *(("result", p) for p in ("case", "differing", "first", "ticks", "logits")),
        *(("stage", p) for p in ("block", "ticks")),
        *(("profile", p) for p in ("ticks", "stack.run", "stack.open", "stack.total", "memory.free")),
    ],
)
def test_a_board_may_not_know(name: str, path: str) -> None:
    assert parse_answer(changed(HONEST[name], path, None)) is not None


def test_members_of_later_revisions_are_ignored() -> None:
    assert parse_answer(changed(HONEST["hello"], "model.colour", {"deep": [1]})) == parse_answer(HONEST["hello"])


def test_carriage_returns_and_noise_in_front_do_not_hide_an_answer() -> None:
    for noise in (b"", b"\0\xff", b'I (314) boot: {"x":', HONEST["result"][:40], HONEST["result"].rstrip()):
        assert parse_answer(noise + HONEST["bye"].replace(b"\n", b"\r\r\n")) == parse_answer(HONEST["bye"])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"ets Jul 29 2019 12:21:46",
        b"{}",
        b'{"bfedge":1}',
        HONEST["bye"].replace(b"bye", b"bya"),
        HONEST["bye"][:-10],
        HONEST["bye"].rstrip() + b" ",
        HONEST["bye"].replace(b'"bfedge":1,', b""),
        line(1, "surprise"),
        line(1, "bye", name="Zo\xeb").replace(b"\\u00eb", b"\xc3\xab"),
    ],
)
def test_other_lines_are_noise(text: bytes) -> None:
    assert parse_answer(text) is None


def test_a_line_with_a_right_checksum_that_is_no_json_is_noise() -> None:
    for middle in (b',"x":', b',"x":tru', b",,", b',"x":' + b"[" * 100_000 + b"]" * 100_000):
        text = b'{"bfedge":1,"id":1,"type":"bye"' + middle
        assert parse_answer(text + b',"check":"%08x"}\n' % zlib.crc32(text)) is None


def test_what_looks_like_a_damaged_answer_is_told_from_other_noise() -> None:
    text = HONEST["result"]
    assert all(looks_damaged(text[:cut]) for cut in range(9, len(text)))
    assert all(looks_damaged(text[cut:]) for cut in range(len(text) - 22))
    assert not looks_damaged(b"I (314) boot: ESP-IDF v5.2")
    assert not looks_damaged(command_line(1, "hello"))


@pytest.mark.parametrize("name", HONEST)
def test_each_flipped_bit_is_found(name: str) -> None:
    text = HONEST[name].rstrip()
    for index in range(len(text) * 8):
        damaged = bytearray(text)
        damaged[index // 8] ^= 1 << index % 8
        assert parse_answer(bytes(damaged)) is None


MEMBERS = {
    name: [p for p in json.loads(text) if p not in ("bfedge", "id", "type", "check")] for name, text in HONEST.items()
}


@pytest.mark.parametrize(
    ("name", "member"), [(n, m) for n, members in MEMBERS.items() for m in members if n != "error"]
)
def test_a_missing_member_is_named(name: str, member: str) -> None:
    with pytest.raises(BfedgeError, match=f"answer `{json.loads(HONEST[name])['type']}` .* missing .*`{member}`"):
        parse_answer(changed(HONEST[name], member))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("result", "ticks", "1000"),
        ("result", "ticks", -1),
        ("result", "ticks", 2**64),
        ("result", "ticks", 1.5),
        ("result", "tile", None),
        ("result", "case", True),
        ("result", "crc32", "DEADBEEF"),
        ("result", "crc32", "0"),
        ("result", "crc32", "01234567\n"),
        ("image", "logits", "3f80000"),
        ("image", "logits", ""),
        ("stage", "stage", "lunch"),
        ("stage", "model_bytes", None),
        ("profile", "workspace", None),
        ("profile", "workspace.intact", 1),
        ("profile", "workspace.used", "512"),
        ("hello", "memory", None),
        ("hello", "model.classes", [4]),
        ("hello", "cpu", "\x1b[2J"),
        ("hello", "board", "\ud800"),
        ("error", "message", None),
        ("error", "needed", -5),
        ("bye", "id", 4294967296),
    ],
)
def test_a_member_of_the_wrong_kind_is_an_error(name: str, path: str, value: Any) -> None:
    text = changed(HONEST[name], path, value)
    if value == "\ud800":
        assert parse_answer(text) is None  # not even JSON
        return
    with pytest.raises(BfedgeError, match="is not what protocol 1 says"):
        parse_answer(text)


def test_the_older_side_of_another_version_is_told_to_update() -> None:
    with pytest.raises(BfedgeError, match="the board speaks protocol 2, this bfedge speaks 1") as newer:
        parse_answer(line(7, "hello", version=2, anything="else"))
    assert "update bfedge" in str(newer.value.hint)
    with pytest.raises(BfedgeError, match="the board speaks protocol 0, this bfedge speaks 1") as older:
        parse_answer(line(7, "hello", version=0))
    assert "program on the board is too old" in str(older.value.hint)


def parsed(text: bytes) -> Answer | BfedgeError | None:
    try:
        return parse_answer(text)
    except BfedgeError as problem:
        return problem


@given(st.binary())
def test_arbitrary_bytes_are_noise(text: bytes) -> None:
    assert parsed(text) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(HONEST)), st.data())
def test_members_of_arbitrary_kinds_give_an_answer_or_a_clear_error(name: str, data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(MEMBERS[name] or ["extra"]))
    found = parsed(changed(HONEST[name], member, data.draw(JSON)))
    assert found is None or isinstance(found, Answer | BfedgeError)
