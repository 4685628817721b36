"""A debug probe with an nRF52840 behind it, for pyocd: what SWD shows of the chip, its flash, pyocd's flash routine.

The core executes nothing. pyocd puts a routine into RAM and starts it with arguments in registers; the chip here then
does to its flash what that routine would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyocd.core.exceptions import TransferFaultError
from pyocd.core.memory_interface import MemoryInterface
from pyocd.core.session import Session
from pyocd.probe.debug_probe import DebugProbe
from pyocd.probe.tcp_probe_server import DebugProbeServer
from pyocd.target.builtin.target_nRF52840_xxAA import FLASH_ALGO

FLASH_BYTES, PAGE_BYTES = 0x100000, 4096
RAM, RAM_BYTES = 0x20000000, 0x40000
FICR_PART = 0x10000100
ROM_TABLE, SYSTEM_CONTROL = 0xE00FF000, 0xE000E000
CPUID, DHCSR, DCRSR, DCRDR = 0xE000ED00, 0xE000EDF0, 0xE000EDF4, 0xE000EDF8
R0, R1, R2, PC, XPSR = 0, 1, 2, 15, 16
HALTED, HALT_BIT, REGISTER_READY = 1 << 17, 1 << 1, 1 << 16


class Chip(MemoryInterface):
    """The memory that the core sees, by SWD's memory access port."""

    def __init__(self, part: int = 0x52840, has_ficr: bool = True, locked: bool = False) -> None:
        self.flash = bytearray(b"\xff" * FLASH_BYTES)
        self.ram = bytearray(RAM_BYTES)
        self.words: dict[int, int] = {CPUID: 0x410FC241}
        self.registers = dict.fromkeys(range(128), 0)
        self.halted = False
        self.locked = locked
        self.routines_run = 0
        self.mass_erased = False
        self.flips: Callable[[int], int] = lambda address: 0
        """Bits that a worn cell at this address fails to keep"""
        if has_ficr:
            self.words |= {FICR_PART: part, FICR_PART + 4: 0x41414630, FICR_PART + 8: 0x2004}
        self.words |= identification(ROM_TABLE, 0x10, 0x4C4) | identification(SYSTEM_CONTROL, 0xE0, 0x00C)
        self.words[ROM_TABLE] = (SYSTEM_CONTROL - ROM_TABLE) & 0xFFFFF000 | 3
        self.words[ROM_TABLE + 4] = 0

    def find(self, address: int) -> tuple[bytearray, int] | None:
        if address < FLASH_BYTES:
            return self.flash, address
        if RAM <= address < RAM + RAM_BYTES:
            return self.ram, address - RAM
        return None

    def read_memory(self, addr: int, transfer_size: int = 32, now: bool = True, **attrs: Any) -> Any:
        value = int.from_bytes(self.read_bytes(addr, transfer_size // 8), "little")
        return value if now else lambda: value

    def write_memory(self, addr: int, data: int, transfer_size: int = 32, **attrs: Any) -> None:
        self.write_bytes(addr, data.to_bytes(transfer_size // 8, "little"))

    def read_memory_block32(self, addr: int, size: int, **attrs: Any) -> Sequence[int]:
        return list(struct.unpack(f"<{size}I", self.read_bytes(addr, 4 * size)))

    def write_memory_block32(self, addr: int, data: Sequence[int], **attrs: Any) -> None:
        self.write_bytes(addr, struct.pack(f"<{len(data)}I", *data))

    def read_memory_block8(self, addr: int, size: int, **attrs: Any) -> Sequence[int]:
        return list(self.read_bytes(addr, size))

    def write_memory_block8(self, addr: int, data: Sequence[int], **attrs: Any) -> None:
        self.write_bytes(addr, bytes(data))

    def read_bytes(self, address: int, size: int) -> bytes:
        if self.locked:
            raise TransferFaultError(fault_address=address)
        place = self.find(address)
        if place:
            memory, at = place
            return bytes(memory[at : at + size])
        words = [self.read_word(word) for word in range(address & ~3, address + size, 4)]
        return struct.pack(f"<{len(words)}I", *words)[address & 3 :][:size]

    def read_word(self, address: int) -> int:
        if address == DHCSR:
            return REGISTER_READY | (HALTED if self.halted else 0) | self.words.get(DHCSR, 0) & 0xF
        if (
            address not in self.words
            and not 0xE0000000 <= address < 0xE0100000
            and not 0x40000000 <= address < 0x60000000
        ):
            raise TransferFaultError(fault_address=address)
        return self.words.get(address, 0)

    def write_bytes(self, address: int, data: bytes) -> None:
        if self.locked:
            raise TransferFaultError(fault_address=address)
        place = self.find(address)
        if place and place[0] is self.ram:
            self.ram[place[1] : place[1] + len(data)] = data
        elif place:
            raise TransferFaultError(fault_address=address)  # flash is written by its controller only
        else:
            for i, (value,) in enumerate(struct.iter_unpack("<I", data)):
                self.write_word(address + 4 * i, value)

    def write_word(self, address: int, value: int) -> None:
        if address == DCRSR:
            register = value & 0x7F
            if value & REGISTER_READY:  # bit 16: write
                self.registers[register] = self.words.get(DCRDR, 0)
            else:
                self.words[DCRDR] = self.registers[register]
            return
        self.words[address] = value
        if address == DHCSR:
            was_halted, self.halted = self.halted, bool(value & HALT_BIT)
            if was_halted and not self.halted:
                self.run_routine()
        elif (
            address == 0xE000ED0C and value & 4
        ):  # AIRCR: reset; DEMCR's lowest bit then halts at the first instruction
            self.halted = bool(self.words.get(0xE000EDFC, 0) & 1)
            self.registers[XPSR] = 1 << 24

    def run_routine(self) -> None:
        """What pyocd started, if it is its routine; it ends in a breakpoint, with the result in r0."""
        pc = self.registers[PC] | 1
        first, second = self.registers[R0], self.registers[R1]
        if pc == FLASH_ALGO["pc_erase_sector"]:
            page = first - first % PAGE_BYTES
            self.flash[page : page + PAGE_BYTES] = b"\xff" * PAGE_BYTES
        elif pc == FLASH_ALGO["pc_eraseAll"]:
            self.mass_erased = True
        elif pc == FLASH_ALGO["pc_program_page"]:
            buffer = self.registers[R2] - RAM
            for i, byte in enumerate(self.ram[buffer : buffer + second]):
                self.flash[first + i] &= byte & ~self.flips(first + i)
        elif not RAM <= pc < RAM + 0x1000:
            return  # the chip's own program
        self.routines_run += 1
        self.registers[R0] = 0
        self.halted = True


def identification(base: int, kind: int, part: int) -> dict[int, int]:
    """A CoreSight component's, made by ARM."""
    peripheral = [part & 0xFF, 0xB0 | part >> 8, 0x0B, 0]
    words = dict(zip(range(base + 0xFE0, base + 0xFF0, 4), peripheral, strict=True))
    words |= dict(zip(range(base + 0xFF0, base + 0x1000, 4), (0x0D, kind, 0x05, 0xB1), strict=True))
    return words | dict.fromkeys(range(base + 0xFD4, base + 0xFE0, 4), 0) | {base + 0xFD0: 4}


class SimulatedProbe(DebugProbe):
    """SWD: the debug port, the memory access port (0), and Nordic's control access port (1)."""

    def __init__(self, chip: Chip) -> None:
        super().__init__()
        self.chip = chip
        self.opened = False
        self.select = self.control = 0
        self.port_words: dict[tuple[int, int], int] = {
            (0, 0xFC): 0x24770011,
            (0, 0xF8): ROM_TABLE | 3,
            (0, 0x00): 0x23000042,
            (1, 0xFC): 0x12880000,
            (1, 0x0C): 0 if chip.locked else 1,
        }

    vendor_name = product_name = "simulated"
    unique_id = "simulated"
    supported_wire_protocols = (DebugProbe.Protocol.DEFAULT, DebugProbe.Protocol.SWD)
    wire_protocol = DebugProbe.Protocol.SWD
    capabilities: set[DebugProbe.Capability] = set()  # noqa: RUF012

    @property
    def is_open(self) -> bool:
        return self.opened

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        self.opened = False

    def connect(self, protocol: Any = None) -> None: ...
    def disconnect(self) -> None: ...
    def set_clock(self, frequency: float) -> None: ...
    def swj_sequence(self, length: int, bits: int) -> None: ...
    def flush(self) -> None: ...
    def assert_reset(self, asserted: bool) -> None: ...

    def reset(self) -> None:
        self.chip.halted = False

    def is_reset_asserted(self) -> bool:
        return False

    def read_dp(self, addr: int, now: bool = True) -> Any:
        power = (self.control & 0x50000000) << 1  # acknowledges what is asked for
        value = {0x0: 0x2BA01477, 0x4: self.control | power}.get(addr, 0)
        return value if now else lambda: value

    def write_dp(self, addr: int, data: int) -> None:
        if addr == 0x4:
            self.control = data
        elif addr == 0x8:
            self.select = data

    def place(self, addr: int) -> tuple[int, int]:
        return self.select >> 24, self.select & 0xF0 | addr & 0xC

    def read_ap(self, addr: int, now: bool = True) -> Any:
        value = self.port_words.get(self.place(addr), 0)
        return value if now else lambda: value

    def write_ap(self, addr: int, data: int) -> None:
        if self.place(addr) == (1, 0x04) and data:
            self.chip.mass_erased = True
        else:
            self.port_words[self.place(addr)] = data

    def read_ap_multiple(self, addr: int, count: int = 1, now: bool = True) -> Any:
        values = [self.read_ap(addr)] * count
        return values if now else lambda: values

    def write_ap_multiple(self, addr: int, values: Sequence[int]) -> None:
        for value in values:
            self.write_ap(addr, value)

    def get_memory_interface_for_ap(self, ap_address: Any) -> MemoryInterface | None:
        return self.chip if ap_address.nominal_address == 0 else None


@contextmanager
def shared_probe(chip: Chip) -> Iterator[str]:
    """The probe behind pyocd's own server; yields the id under which pyocd finds it."""
    server = DebugProbeServer(Session(None), SimulatedProbe(chip), port=0, serve_local_only=True)
    server._server.serve_forever = partial(
        server._server.serve_forever, poll_interval=0.02
    )  # it ends half a second late
    server.start()
    try:
        yield f"remote:localhost:{server._server.server_address[1]}"
    finally:
        server.stop()
        server._server.server_close()
