"""An emulated core has what its board has, and no more: else the other tests would prove little."""

from __future__ import annotations

import signal
import struct

import pytest

from device_profiles.loader import load_profile
from tests.arm.boards import A7, A53, A76, BOARDS

pytestmark = [pytest.mark.slow, pytest.mark.needs("qemu-aarch64-static", "qemu-user-static")]

# Calls a function of machine code, given as hexadecimal digits.
CALL = """
import ctypes, mmap, sys
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex(sys.argv[1]))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
SDOT_THEN_RETURN = struct.pack("<2I", 0x4E829420, 0xD65F03C0)  # sdot v0.4s, v1.16b, v2.16b
RETURN = struct.pack("<I", 0xD65F03C0)
VSDOT_THEN_RETURN = struct.pack("<2I", 0xFC220D44, 0xE12FFF1E)  # vsdot.s8 q0, q1, q2
RETURN_32 = struct.pack("<I", 0xE12FFF1E)


@pytest.mark.parametrize(
    ("core", "code", "has"),
    [
        (A53, RETURN, True),
        (A53, SDOT_THEN_RETURN, False),
        (A76, SDOT_THEN_RETURN, True),
        (A7, RETURN_32, True),
        (A7, VSDOT_THEN_RETURN, False),
    ],
    ids=["a53-return", "a53-sdot", "a76-sdot", "a7-return", "a7-vsdot"],
)
def test_an_instruction_that_the_board_lacks_ends_the_process(board, core, code, has):
    done = board(core).run("-c", CALL, code.hex(), check=False)
    assert done.returncode in ((0,) if has else (-signal.SIGILL, 128 + signal.SIGILL))


@pytest.mark.parametrize("name", BOARDS)
def test_detect_writes_a_valid_profile_of_the_board(board, name, tmp_path):
    written = tmp_path / "detected.toml"
    board(BOARDS[name]).edge_sdk("profiles", "detect", "-o", written)
    detected, known = load_profile(written), load_profile(name)
    assert set(known.cpu.isa) <= set(detected.cpu.isa)
    assert detected.platform == known.platform
    assert detected.quantization == known.quantization
    assert [engine.name for engine in detected.engines] == [e.name for e in known.engines]
