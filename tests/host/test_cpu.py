"""Features of a processor, read from /proc/cpuinfo as kernels write it."""

from __future__ import annotations

import pytest

from effx.host import cpu


@pytest.mark.parametrize(
    ("text", "bf16", "vnni"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True, True),
        ("flags\t\t: fpu avx2 avx_vnni\n", False, True),
        (
            "flags\t\t: fpu avx2 avx512_4vnniw\n",
            False,
            False,
        ),  # Xeon Phi: other instructions
        ("model name\t: vnni bf16\nflags\t\t: fpu\n", False, False),
        ("Features\t: fp asimd asimddp bf16\n", True, False),
        ("", False, False),
    ],
)
def test_features_are_whole_flags(text: str, bf16: bool, vnni: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "features", lambda: cpu.flags(text))
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    assert (cpu.has_bf16(), cpu.has_vnni()) == (bf16, vnni)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    assert cpu.has_vnni()
