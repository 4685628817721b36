"""Reads the plain values and byte arrays of a pickle and nothing else: nothing that a pickle names is ever called."""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NAMES = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}

MOST_OPERATIONS = 1_000_000
"""CIFAR-100's training images take 200,362; each can take 50 times its own size of memory"""

MARK = object()


@dataclass(frozen=True)
class Name:
    """Of a function or class; only compared, never looked up"""

    text: str


@dataclass
class Built:
    """What a pickle would make by a call"""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_plain_pickle(content: bytes) -> Any:
    """Dictionaries with string keys, lists, tuples, strings, numbers and `Built`, as Python 2 pickled them in
    protocol 2. Its strings become str by Latin-1.

    Raises ValueError for all else.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if number == MOST_OPERATIONS:
                raise ValueError(f"it has more than {MOST_OPERATIONS:,} operations")
            step(opcode.name, argument, stack, memo)
    except (ValueError, KeyError, IndexError) as problem:
        raise ValueError(f"not a pickle of plain values ({str(problem)[:200]})") from None
    return stack[-1] if stack else None


def step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One opcode of the pickle's stack machine."""
    if name in VALUES:
        stack.append(CONSTANTS.get(name, argument))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(MARK)
    elif name in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.append([] if name == "EMPTY_LIST" else {})
    elif name in TUPLES:
        count = TUPLES[name]
        stack.append(tuple(popped(stack, count)))
    elif name == "TUPLE":
        stack.append(tuple(since_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        items = popped(stack, 1) if name == "APPEND" else since_mark(stack)
        expect(stack[-1], list).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = popped(stack, 2) if name == "SETITEM" else since_mark(stack)
        values = expect(stack[-1], dict)
        values.update((expect(key, str), value) for key, value in zip(items[::2], items[1::2], strict=True))
    elif name == "GLOBAL":
        if argument not in NAMES:
            raise ValueError(f"it names {argument!r}")
        stack.append(Name(argument))
    elif name == "REDUCE":
        called, arguments = popped(stack, 2)
        stack.append(Built(expect(called, Name).text, expect(arguments, tuple)))
    elif name == "BUILD":
        (state,) = popped(stack, 1)
        expect(stack[-1], Built).state = state
    elif name not in ("PROTO", "STOP"):
        raise ValueError(f"it has the operation {name}")


def popped(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("its stack is empty")
    start = len(stack) - count
    items = stack[start:]
    del stack[start:]
    return items


def since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not MARK:
        items.append(item)
    return items[::-1]


def expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def byte_array(value: Any) -> NDArray[np.uint8]:
    """The array of uint8 that a value of `read_plain_pickle` stands for. Raises ValueError for any other."""
    if not (isinstance(value, Built) and value.name == "numpy.core.multiarray _reconstruct"):
        raise ValueError("no array")
    if not (isinstance(value.state, tuple) and len(value.state) == 5):
        raise ValueError("no whole array")
    _, shape, dtype, is_fortran, content = value.state
    if not (isinstance(dtype, Built) and dtype.name == "numpy dtype" and dtype.arguments[:1] == ("u1",)):
        raise ValueError("no array of uint8")
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and isinstance(content, str)):
        raise ValueError("no whole array")
    if math.prod(shape) != len(content) or not content:
        raise ValueError(f"no whole array: {len(content)} bytes of shape {str(shape)[:100]}")
    return np.frombuffer(content.encode("latin-1"), np.uint8).reshape(shape, order="F" if is_fortran else "C")
