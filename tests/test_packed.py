"""The packed file: round trips, sizes by formula, determinism, and every validation rule in Python and in C."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bfedge.config import padded_width
from bfedge.device.host import HostModel, RuntimeRefusalError
from bfedge.errors import BfedgeError
from bfedge.lowered.model import LoweredViT, TernaryMatrix, same
from bfedge.packed.golden import golden_vectors
from bfedge.packed.layout import ENTRY, HEADER, Encoding, Kind
from bfedge.packed.reader import unpack
from bfedge.packed.trits import legal_trits, pack_trits, unpack_trits
from bfedge.packed.validate import BadFileError, validate
from bfedge.packed.writer import pack, with_checksum
from tests.random_models import random_config, random_images, random_lowered

TERNARY = [Encoding.trits2, Encoding.trits3]


@given(
    arrays.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 23)), elements=st.integers(-1, 1)),
    st.sampled_from(TERNARY),
)
def test_trits_round_trip(trits: np.ndarray, encoding: Encoding) -> None:
    rows, columns = trits.shape
    data = pack_trits(trits, encoding)
    assert len(data) == rows * -(-columns // (4 if encoding == Encoding.trits2 else 5))
    assert legal_trits(data, encoding, rows, columns)
    assert (unpack_trits(data, encoding, rows, columns) == trits).all()


@pytest.mark.parametrize("encoding", TERNARY)
def test_every_byte_is_a_legal_trit_group_or_refused(encoding: Encoding) -> None:
    per_byte = 4 if encoding == Encoding.trits2 else 5
    legal = [b for b in range(256) if legal_trits(bytes([b]), encoding, 1, per_byte)]
    assert len(legal) == 3**per_byte
    assert all(pack_trits(unpack_trits(bytes([b]), encoding, 1, per_byte), encoding) == bytes([b]) for b in legal)


@pytest.mark.parametrize("seed", range(40))
def test_unpack_is_the_inverse_of_pack(seed: int) -> None:
    model = random_lowered(seed)
    golden = golden_vectors(model, random_images(model, 2, seed)) if seed % 3 else None
    opened = unpack(pack(model, golden))
    assert same(opened.model, model)
    assert same(opened.golden, golden)


def test_labels_survive_and_must_fit() -> None:
    model = random_lowered(3)
    names = tuple(f"Klasse {n} é" for n in range(model.shape.classes))
    labelled = LoweredViT(**{**vars(model), "labels": names})
    assert unpack(pack(labelled)).model.labels == names
    with pytest.raises(BfedgeError, match="labels for"):
        pack(LoweredViT(**{**vars(model), "labels": (*names, "one too many")}))


def test_same_model_gives_the_same_bytes() -> None:
    assert pack(random_lowered(5)) == pack(random_lowered(5))
    assert pack(random_lowered(5)) != pack(random_lowered(6))


@pytest.mark.parametrize("seed", range(20))
def test_section_bytes_are_what_the_formula_says(seed: int) -> None:
    """Substrate rows at 2 or 1.6 bits a trit (rounded up to bytes a row), 2 bytes an angle or 1."""
    model = random_lowered(seed)
    shape = model.shape
    checked = validate(pack(model))
    substrate = model.blocks[0].experts.substrate
    per_byte = {"trits2": 4, "trits3": 5}[substrate.encoding]
    sizes = {s.kind: s.bytes for s in checked.sections if s.block == 0}
    assert sizes[Kind.substrate] == shape.d_ff * -(-shape.d_model // per_byte)
    an_angle = {"float16": 2, "int8": 1}[random_config(seed).angles]
    assert sizes[Kind.theta] == an_angle * shape.experts * shape.theta_layers * padded_width(shape.d_model) // 2
    assert sizes[Kind.phi] == an_angle * shape.experts * shape.phi_layers * padded_width(shape.d_ff) // 2
    down = model.blocks[0].experts.down
    if isinstance(down, TernaryMatrix):
        assert sizes[Kind.down_weight] == shape.d_model * -(-shape.d_ff // per_byte)
        assert sizes[Kind.down_scale] == 4
    else:
        assert sizes[Kind.down_weight] == shape.d_model * shape.d_ff
        assert sizes[Kind.down_scale] == 4 * shape.d_model


def test_a_weight_that_is_not_finite_is_refused_before_anything_is_written() -> None:
    model = random_lowered(2)
    position = model.position.copy()
    position[0, 0] = np.nan
    with pytest.raises(BfedgeError, match="position has a value that is not finite"):
        pack(LoweredViT(**{**vars(model), "position": position}))


# --- The rules, one crafted violation each -------------------------------------------------------------------------


def a_file(angles: str) -> bytes:
    shape: dict[str, Any] = dict(image_height=4, image_width=4, patch_size=2, d_model=6, d_ff=9, heads=2)
    model = random_lowered(7, pooling="class", angles=angles, **shape)
    labelled = LoweredViT(**{**vars(model), "labels": tuple("abcdefghijklmnop"[: model.shape.classes])})
    return pack(labelled, golden_vectors(labelled, random_images(labelled, 2, 7)))


FILE = a_file("float16")
CHECKED = validate(FILE)
FILE8 = a_file("int8")
"""With 8-bit angles"""


def put(offset: int, value: bytes, data: bytes = FILE) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def index_of(kind: Kind) -> int:
    return next(i for i, s in enumerate(CHECKED.sections) if s.kind == kind)


def in_section(kind: Kind, at: int, value: bytes) -> bytes:
    return put(CHECKED.sections[index_of(kind)].offset + at, value)


def in_entry(kind: Kind, field: int, value: int, data: bytes = FILE) -> bytes:
    """field: 0 kind, 1 block, 2 encoding, 3 reserved, 4 offset, 5 bytes"""
    start = HEADER.size + ENTRY.size * index_of(kind)
    entry = list(ENTRY.unpack_from(data, start))
    entry[field] = value
    return put(start, ENTRY.pack(*entry), data)


def feature(bits: int, data: bytes = FILE) -> bytes:
    return put(24, struct.pack("<I", bits), data)


def config_word(word: int, value: int) -> bytes:
    return in_section(Kind.config, 4 * word, struct.pack("<I", value))


INF, NAN = struct.pack("<f", float("inf")), struct.pack("<f", float("nan"))

VIOLATIONS: list[tuple[str, int, str, Callable[[], bytes]]] = [
    ("empty", 1, "not a model", lambda: b""),
    ("wrong magic", 1, "not a model", lambda: put(0, b"GGUF")),
    ("header cut", 2, "truncated", lambda: FILE[:63]),
    ("big-endian", 3, "wrong byte order", lambda: put(4, bytes([1, 2, 3, 4]))),
    ("garbled mark", 3, "corrupt", lambda: put(4, bytes([9, 9, 9, 9]))),
    ("newer major", 4, "format version too new", lambda: put(8, struct.pack("<H", 2))),
    ("major 0", 4, "corrupt", lambda: put(8, struct.pack("<H", 0))),
    ("cut", 5, "truncated", lambda: FILE[:-16]),
    ("longer", 5, "corrupt", lambda: FILE + bytes(16)),
    ("checksum", 6, "corrupt", lambda: put(len(FILE) - 40, bytes([FILE[-40] ^ 1]))),
    ("feature", 7, "unsupported feature", lambda: with_checksum(put(24, struct.pack("<I", 1 << 30)))),
    ("header bytes", 8, "corrupt", lambda: with_checksum(put(12, struct.pack("<I", 128)))),
    ("reserved", 8, "corrupt", lambda: with_checksum(put(63, b"\1"))),
    ("section count", 8, "corrupt", lambda: with_checksum(put(32, struct.pack("<I", 2**32 - 1)))),
    ("reserved in table", 8, "corrupt", lambda: with_checksum(in_entry(Kind.norm1, 3, 1))),
    ("no sections", 9, "corrupt", lambda: with_checksum(put(32, struct.pack("<I", 0)))),
    ("config size", 9, "corrupt", lambda: with_checksum(in_entry(Kind.config, 5, 64))),
    ("architecture", 10, "unsupported feature", lambda: with_checksum(config_word(0, 2))),
    ("feed-forward", 10, "unsupported feature", lambda: with_checksum(config_word(15, 7))),
    ("no layers", 10, "corrupt", lambda: with_checksum(config_word(8, 0))),
    ("huge d_model", 10, "corrupt", lambda: with_checksum(config_word(6, 2**32 - 1))),
    ("heads do not divide", 10, "corrupt", lambda: with_checksum(config_word(9, 5))),
    ("top_k above experts", 10, "corrupt", lambda: with_checksum(config_word(11, 16))),
    ("attention scale NaN", 10, "corrupt", lambda: with_checksum(in_section(Kind.config, 64, NAN))),
    ("rotation too deep", 10, "corrupt", lambda: with_checksum(config_word(12, 4))),
    ("too many tokens", 10, "corrupt", lambda: with_checksum(in_section(Kind.config, 4, bytes([0, 16, 0, 0] * 2)))),
    ("other d_ff", 11, "corrupt", lambda: with_checksum(config_word(7, 10))),
    ("unknown kind", 11, "unsupported feature", lambda: with_checksum(in_entry(Kind.norm1, 0, 99))),
    ("wrong block", 11, "corrupt", lambda: with_checksum(in_entry(Kind.norm1, 1, 3))),
    ("wrong encoding", 11, "corrupt", lambda: with_checksum(in_entry(Kind.substrate, 2, Encoding.int8))),
    ("weights as angles", 11, "corrupt", lambda: with_checksum(in_entry(Kind.router_weight, 2, Encoding.angle8))),
    ("angles as weights", 11, "corrupt", lambda: with_checksum(in_entry(Kind.theta, 2, Encoding.int8, FILE8))),
    ("half the angles", 11, "corrupt", lambda: with_checksum(in_entry(Kind.theta, 2, Encoding.f16, FILE8))),
    ("twice the angles", 11, "corrupt", lambda: with_checksum(in_entry(Kind.phi, 2, Encoding.angle8))),
    ("wrong size", 11, "corrupt", lambda: with_checksum(in_entry(Kind.position, 5, 4))),
    ("golden twice", 11, "corrupt", lambda: with_checksum(in_entry(Kind.golden_output, 0, Kind.golden_input))),
    ("offset", 12, "corrupt", lambda: with_checksum(in_entry(Kind.norm, 4, CHECKED.sections[0].offset))),
    ("offset outside", 12, "corrupt", lambda: with_checksum(in_entry(Kind.norm, 4, 2**32 - 16))),
    ("padding", 13, "corrupt", lambda: with_checksum(put(CHECKED.sections[1].offset - 1, b"\1"))),
    ("features not used", 14, "corrupt", lambda: with_checksum(feature(15))),
    ("8-bit angles not used", 14, "corrupt", lambda: with_checksum(feature(FILE[24] | 16))),
    ("8-bit angles not said", 14, "corrupt", lambda: with_checksum(feature(FILE[24], FILE8))),
    ("illegal trit", 15, "corrupt", lambda: with_checksum(in_section(Kind.substrate, 0, b"\xff"))),
    ("unused trit", 15, "corrupt", lambda: with_checksum(in_section(Kind.substrate, 1, b"\0"))),
    ("weight -128", 15, "corrupt", lambda: with_checksum(in_section(Kind.patch_weight, 3, b"\x80"))),
    ("infinite bias", 16, "corrupt", lambda: with_checksum(in_section(Kind.qkv_bias, 4, INF))),
    ("NaN position", 16, "corrupt", lambda: with_checksum(in_section(Kind.position, 8, NAN))),
    ("beyond 1024", 16, "corrupt", lambda: with_checksum(in_section(Kind.norm2, 0, struct.pack("<f", 1025)))),
    ("zero scale", 16, "corrupt", lambda: with_checksum(in_section(Kind.patch_scale, 0, bytes(4)))),
    ("negative scale", 16, "corrupt", lambda: with_checksum(in_section(Kind.head_scale, 0, struct.pack("<f", -1)))),
    ("golden NaN", 16, "corrupt", lambda: with_checksum(in_section(Kind.golden_output, 0, NAN))),
    ("angle NaN", 17, "corrupt", lambda: with_checksum(in_section(Kind.theta, 0, b"\xff\x7f"))),
    ("angle beyond a turn", 17, "corrupt", lambda: with_checksum(in_section(Kind.phi, 2, struct.pack("<e", 3.15)))),
    ("labels not UTF-8", 18, "corrupt", lambda: with_checksum(in_section(Kind.labels, 0, b"\xff"))),
    ("labels too many", 18, "corrupt", lambda: with_checksum(in_section(Kind.labels, 0, b"\n"))),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "status", "craft"), [v[1:] for v in VIOLATIONS], ids=[v[0] for v in VIOLATIONS])
def test_violation_is_refused_by_its_rule_in_python_and_in_c(
    rule: int, status: str, craft: Callable[[], bytes]
) -> None:
    data = craft()
    with pytest.raises(BadFileError) as python:
        validate(data)
    assert (python.value.rule, python.value.status) == (rule, status)
    with pytest.raises(RuntimeRefusalError) as runtime:
        HostModel(data)
    assert (runtime.value.rule, runtime.value.status) == (rule, status)


def test_every_rule_has_a_violation() -> None:
    assert {v[1] for v in VIOLATIONS} == set(range(1, 19))


def test_golden_sections_must_come_together() -> None:
    """V18 for a file that ends after golden_input."""
    count = len(CHECKED.sections) - 1
    start = HEADER.size + ENTRY.size * count
    body = FILE[CHECKED.sections[0].offset : CHECKED.sections[-1].offset]
    shift = CHECKED.sections[0].offset - -(-start // 16) * 16
    table = b"".join(
        ENTRY.pack(*entry[:4], entry[4] - shift, entry[5])
        for entry in (ENTRY.unpack_from(FILE, HEADER.size + ENTRY.size * i) for i in range(count))
    )
    data = bytearray((FILE[: HEADER.size] + table).ljust(-(-start // 16) * 16, b"\0") + body)
    struct.pack_into("<I", data, 32, count)
    struct.pack_into("<I", data, 16, len(data))
    with pytest.raises(BadFileError, match="golden") as refused:
        validate(with_checksum(bytes(data)))
    assert refused.value.rule == 18
    with pytest.raises(RuntimeRefusalError, match="V18"):
        HostModel(with_checksum(bytes(data)))


def verdict(read: Callable[[bytes], object], data: bytes) -> tuple[str, int]:
    try:
        read(data)
    except (BadFileError, RuntimeRefusalError) as refused:
        return refused.status, refused.rule
    return "ok", 0


def test_truncation_at_every_byte_is_refused() -> None:
    for length in range(len(FILE)):
        assert verdict(validate, FILE[:length])[0] in ("truncated", "not a model")


@pytest.mark.parametrize("file", [FILE, FILE8], ids=["16-bit angles", "8-bit angles"])
def test_python_and_c_give_the_same_verdict_on_every_truncation_and_flip(file: bytes) -> None:
    for length in range(0, len(file), 7):
        assert verdict(validate, file[:length]) == verdict(HostModel, file[:length])
    for position in range(len(file)):
        flipped = put(position, bytes([file[position] ^ (1 << position % 8)]), file)
        assert verdict(validate, flipped) == verdict(HostModel, flipped) != ("ok", 0)


def test_every_8_bit_angle_is_legal() -> None:
    theta = next(s for s in validate(FILE8).sections if s.kind == Kind.theta)
    for code in range(256):
        data = with_checksum(put(theta.offset, bytes([code]), FILE8))
        assert verdict(validate, data) == verdict(HostModel, data) == ("ok", 0)
        assert unpack(data).model.blocks[0].experts.theta.stored.flat[0] == np.uint8(code).astype(np.int8)


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_python_and_c_agree_on_altered_files_with_a_right_checksum(draw: st.DataObject) -> None:
    """An attacker can compute the checksum too."""
    data = draw.draw(st.sampled_from([FILE, FILE8]))
    for _ in range(draw.draw(st.integers(1, 3))):
        header = draw.draw(st.booleans())
        position = draw.draw(st.integers(0, (CHECKED.sections[1].offset if header else len(data)) - 1))
        value = draw.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        data = put(position, bytes([value]), data)
    data = with_checksum(data)
    assert verdict(validate, data) == verdict(HostModel, data)
