"""Machines as their kernels describe them: /proc texts of real boards, written below a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_profiles.machine import InstalledEngine, Machine, read_machine

ARM_CORE = """\
processor\t: {number}
{model}BogoMIPS\t: {bogomips}
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: {architecture}
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}

"""
A53 = "fp asimd evtstrm crc32 cpuid"
A76 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
    " asimddp"
)
A78AE = f"{A76} uscat ilrcpc flagm paca pacg"
A7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
EPYC = (
    "fpu vme de pse tsc msr sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand fma avx2"
    " avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16 avx512_vnni sha_ni"
)
HASWELL = "fpu vme de pse tsc msr fma cx16 sse4_1 sse4_2 movbe popcnt aes avx f16c rdrand avx2"


def _arm(cores: int, features: str, part: str, **more: str) -> str:
    fields = {
        "model": "",
        "bogomips": "108.00",
        "architecture": "8",
        "variant": "0x0",
        "revision": "1",
        **more,
    }
    return "".join(
        ARM_CORE.format(number=n, features=features, part=part, **fields) for n in range(cores)
    )


def _x86(cores: int, name: str, flags: str) -> str:
    return "".join(
        f"processor\t: {n}\nvendor_id\t: any\nmodel name\t: {name}\ncpu MHz\t\t: 2600.0\n"
        f"flags\t\t: {flags}\nbugs\t\t:\n\n"
        for n in range(cores)
    )


@dataclass(frozen=True)
class Board:
    """A board: what its kernel says, and the engine a user would have installed."""

    uname: str
    cpuinfo: str
    memory_kib: int
    device_tree: str = ""
    pointer_bits: int = 64
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    engine: str = "onnx"

    def write(self, root: Path) -> Path:
        (root / "proc").mkdir(parents=True, exist_ok=True)
        (root / "proc/cpuinfo").write_text(self.cpuinfo)
        meminfo = f"MemTotal:       {self.memory_kib} kB\nMemFree:        100000 kB\n"
        (root / "proc/meminfo").write_text(meminfo)
        if self.device_tree:
            (root / "proc/device-tree").mkdir()
            (root / "proc/device-tree/model").write_text(f"{self.device_tree}\0")
        return root

    def read(self, root: Path, cpus: int = 64) -> Machine:
        engine = InstalledEngine(name=self.engine, version="any 1.0", providers=self.providers)
        return read_machine(
            self.write(root),
            uname=self.uname,
            pointer_bits=self.pointer_bits,
            cpus=cpus,
            engines=(engine,),
        )


GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
PI_ZERO_2W = Board(
    "aarch64",
    _arm(4, A53, "0xd03", bogomips="38.40", revision="4")
    + "Revision\t: 902120\nModel\t\t: Raspberry Pi Zero 2 W Rev 1.0\n",
    memory_kib=436_336,
)
PI_4 = Board(
    "aarch64",
    _arm(4, A53, "0xd08", revision="3") + "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    memory_kib=3_884_360,
)
PI_5 = Board(
    "aarch64",
    _arm(4, A76, "0xd0b", variant="0x4") + "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    memory_kib=8_245_248,
)
PI_5_32_BIT = Board(
    "aarch64",
    _arm(4, "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae", "0xd0b"),
    memory_kib=4_147_200,
    pointer_bits=32,
    providers=(),
    engine="litert",
)
ORIN_NANO = Board(
    "aarch64",
    _arm(6, A78AE, "0xd42", model="model name\t: ARMv8 Processor rev 1 (v8l)\n"),
    memory_kib=7_801_856,
    device_tree="NVIDIA Jetson Orin Nano Developer Kit",
    providers=GPU,
)
CORTEX_A7 = Board(
    "armv7l",
    _arm(4, A7, "0xc07", model="model name\t: ARMv7 Processor rev 5 (v7l)\n", architecture="7")
    + "Hardware\t: Allwinner sun8i Family\n",
    memory_kib=504_828,
    pointer_bits=32,
    providers=(),
    engine="litert",
)
GATEWAY = Board("x86_64", _x86(4, "AMD EPYC", EPYC), memory_kib=16_000_000)
OLD_GATEWAY = Board("x86_64", _x86(2, "Intel Core i5-4570", HASWELL), memory_kib=3_900_000)
