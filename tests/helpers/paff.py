"""H.264 whose frames are pairs of field pictures (PAFF), which no encoder at hand writes: raw samples, bit by bit.

Each field is an I slice of I_PCM macroblocks (ITU-R H.264, 7.3), each first field an IDR picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


class Bits:
    """A NAL unit's payload in the making."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def u(self, n: int, value: int) -> Bits:
        self.bits += [(value >> (n - 1 - i)) & 1 for i in range(n)]
        return self

    def ue(self, *values: int) -> Bits:
        for value in values:
            n = (value + 1).bit_length()
            self.u(n - 1, 0).u(n, value + 1)
        return self

    def samples(self, data: bytes) -> None:
        self.u(-len(self.bits) % 8, 0)
        self.bits += np.unpackbits(np.frombuffer(data, np.uint8)).tolist()

    def end(self) -> bytes:
        self.u(1, 1).u(-len(self.bits) % 8, 0)
        return np.packbits(self.bits).tobytes()


def nal(header: int, payload: bytes) -> bytes:
    """With start code and emulation prevention."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([header]) + bytes(out)


def fields(pictures: Sequence[np.ndarray]) -> list[bytes]:
    """An access unit of each field. pictures: luma uint8 (H, W), H a multiple of 32, W of 16; even ones give the upper
    field of a frame, odd ones the lower."""
    h, w = pictures[0].shape
    sps = Bits().u(8, 77).u(8, 0).u(8, 30).ue(0, 0, 2, 1).u(1, 0).ue(w // 16 - 1, h // 32 - 1)
    sps.u(1, 0).u(1, 0).u(1, 1).u(1, 0).u(1, 0)  # frame_mbs_only, mb_adaptive, direct_8x8, no crop, no VUI
    pps = Bits().ue(0, 0).u(2, 0).ue(0, 0, 0).u(3, 0).ue(0, 0, 0).u(3, 0)
    sets = nal(0x67, sps.end()) + nal(0x68, pps.end())
    units = []
    for n, picture in enumerate(pictures):
        lower = n % 2
        field = np.clip(picture[lower::2], 1, 254)
        slice_ = Bits().ue(0, 7, 0).u(4, 0).u(1, 1).u(1, lower)
        slice_ = slice_.u(1, 0) if lower else slice_.ue(n // 2 % 2).u(2, 0)
        slice_.ue(0)
        for y in range(0, h // 2, 16):
            for x in range(0, w, 16):
                slice_.ue(25).samples(field[y : y + 16, x : x + 16].tobytes() + bytes([128]) * 128)
        units.append((b"" if lower else sets) + nal(0x61 if lower else 0x65, slice_.end()))
    return units


def write_paff(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    """A bare stream (.h264), or a transport stream with a packet and a time stamp for each field, 50 a second."""
    units = fields(pictures)
    bare = path.with_suffix(".h264")
    bare.write_bytes(b"".join(units))
    if path == bare:
        return path
    with av.open(str(bare)) as a, av.open(str(path), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for k, unit in enumerate(units):
            packet = av.Packet(unit)
            packet.stream, packet.time_base = stream, Fraction(1, 50)
            packet.pts = packet.dts = k
            packet.is_keyframe = k % 2 == 0
            b.mux(packet)
    bare.unlink()
    return path
