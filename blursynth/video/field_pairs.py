"""Fields of H.264 film that come as packets of their own (PAFF): which two are one frame, told by their headers."""

from __future__ import annotations

import av


class FieldPairs:
    """Tells the second field of an H.264 frame whose two fields are packets of their own (PAFF in a transport stream).

    Such a packet gives no frame. Reads what ITU-R H.264, 7.3.2.1 and 7.3.3, put before field_pic_flag.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        bare = {"mpegts", "mpeg", "h264"} & set(container.format.name.split(","))
        self.able = bool(bare) and stream.codec.name == "h264"  # others hold both fields in one packet
        self.frame_num_bits: int | None = None  # of the last parameter set, where it allows fields
        self.planes = False
        self.first: tuple[int, int] | None = (
            None  # frame_num and parity of a field that waits for its other half
        )

    def is_second(self, packet: av.Packet) -> bool:
        """True where this packet, the next one of the stream, holds only the other half of the last one's frame."""
        fields = self._fields(bytes(packet)) if self.able else []
        if len(fields) != 1:  # a frame, or both of its fields
            self.first = None
            return False
        ((number, parity),) = fields
        second = self.first == (number, 1 - parity)
        self.first = None if second else (number, parity)
        return second

    def _fields(self, data: bytes) -> list[tuple[int, int]]:
        """frame_num and bottom_field_flag of each field that begins in the packet; none where it holds a frame."""
        found: list[tuple[int, int]] = []
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 4:
            kind = data[at + 3] & 31
            if kind == 7:
                self._parameter_set(_Bits(data[at + 4 : at + 1028]))
            elif kind in (1, 5):
                if self.frame_num_bits is None:
                    return []
                bits = _Bits(data[at + 4 : at + 36])
                begins = bits.golomb() == 0  # first_mb_in_slice
                bits.golomb(), bits.golomb()  # slice_type, pic_parameter_set_id
                bits.take(2 if self.planes else 0)
                number = bits.take(self.frame_num_bits)
                if not bits.take(1):
                    return []
                if begins:
                    found.append((number, bits.take(1)))
            at = data.find(b"\0\0\1", at + 3)
        return found

    def _parameter_set(self, bits: _Bits) -> None:
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        self.planes = False
        if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
            chroma = bits.golomb()
            self.planes = chroma == 3 and bool(bits.take(1))
            bits.golomb(), bits.golomb(), bits.take(1)
            if bits.take(1):
                for n in range(8 if chroma != 3 else 12):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if n < 6 else 64)
        number = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1), bits.golomb(), bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb(), bits.take(1), bits.golomb(), bits.golomb()
        self.frame_num_bits = None if bits.take(1) else number  # frame_mbs_only_flag: no fields


class _Bits:
    """Bits of a NAL unit, without its emulation bytes; zeros behind its end."""

    def __init__(self, data: bytes):
        data = data.replace(b"\0\0\3", b"\0\0")
        self.text = "".join(f"{x:08b}" for x in data)
        self.at = 0

    def take(self, n: int) -> int:
        part = self.text[self.at : self.at + n]
        self.at += n
        return int(part.ljust(n, "0"), 2) if n else 0

    def golomb(self) -> int:
        """ue(v); of se(v) it has the right length."""
        one = self.text.find("1", self.at)
        zeros = one - self.at
        if one < 0 or zeros > 31:
            self.at = len(self.text)
            return 0
        self.at = one
        return self.take(zeros + 1) - 1


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last, after = 8, 8
    for _ in range(size):
        if after:
            code = bits.golomb()
            after = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = after or last
