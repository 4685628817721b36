"""Executed instructions of kernels and models are those of the record, and few enough against plain C."""

from __future__ import annotations

import pytest

from bfedge.lowered.model import Shape
from tests.counting import count_model
from tests.fixed_models import CIFAR_BLOCK, DIGITS
from tests.instructions import SHARE_OF_PLAIN_C, UPDATE, Subject, changes, differences, read_record, subjects

RECORDED = {"gelu": 1000, "add": 200}


@pytest.mark.slow
@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_executed_instructions_are_those_of_the_record(subject: Subject) -> None:
    missing = subject.missing()
    if missing is not None:
        pytest.skip(missing)
    recorded = read_record().get(subject.name)
    assert recorded is not None, f"{subject.name} is not in the record: {UPDATE}"
    if subject.compiler() != recorded["compiler"]:
        pytest.skip(f"the record is {recorded['compiler']}'s, and here is {subject.compiler()}: {UPDATE}")
    wrong = differences(subject.name, recorded["instructions"], subject.count())
    assert not wrong, "\n".join(wrong)


def test_the_record_is_of_all_subjects_and_no_others() -> None:
    assert sorted(read_record()) == sorted(subject.name for subject in subjects()), UPDATE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "shape"),
    [
        *(pytest.param(board, DIGITS, id=f"digits on {board}") for board in SHARE_OF_PLAIN_C),
        *(pytest.param(board, CIFAR_BLOCK, id=f"block on {board}") for board in ("jetson-nano", "raspberry-pi-5")),
    ],
)
def test_kernels_execute_a_fraction_of_the_instructions_of_plain_c(board: str, shape: Shape) -> None:
    """Plain C is the kernels "c" at -O2, which the compiler does not turn into vector instructions."""
    missing = next(subject for subject in subjects() if subject.name == f"digits on {board}").missing()
    if missing is not None:
        pytest.skip(missing)
    [(_, ours)] = count_model(shape, board).items()
    [(_, plain)] = count_model(shape, board, plain=True).items()
    most = SHARE_OF_PLAIN_C[board]
    assert ours <= most * plain, f"{ours:,} instructions are {ours / plain:.3f} of {plain:,}, at most {most:.3f} may be"


def test_three_per_cent_either_way_are_no_difference() -> None:
    assert differences("kernels", RECORDED, {"gelu": 1030, "add": 194}) == []
    assert differences("kernels", RECORDED, RECORDED) == []


def test_more_instructions_are_named_with_both_numbers_and_what_to_do() -> None:
    [grown] = differences("kernels neon", RECORDED, {"gelu": 1031, "add": 200})
    assert "kernels neon, gelu: 1,031 instructions, 3.1% more than the record's 1,000" in grown
    assert "python -m tests.instructions --update" in grown


def test_fewer_instructions_are_a_difference_too() -> None:
    [shrunk] = differences("kernels neon", RECORDED, {"gelu": 1000, "add": 193})
    assert "add: 193 instructions, 3.5% fewer than the record's 200" in shrunk


def test_what_is_new_or_gone_is_a_difference() -> None:
    gone, new = differences("kernels neon", RECORDED, {"gelu": 1000, "softmax": 50})
    assert "add: in the record with 200 instructions, but no longer counted" in gone
    assert "softmax: 50 instructions, and nothing in the record" in new


def test_the_table_of_an_update_has_every_change() -> None:
    rows = [row.split() for row in changes("k", {**RECORDED, "old": 7}, {"gelu": 1001, "add": 200, "softmax": 50})]
    assert rows == [
        ["k,", "gelu", "1,000", "1,001", "+0.1%"],
        ["k,", "old", "7", "gone"],
        ["k,", "softmax", "50", "new"],
    ]
