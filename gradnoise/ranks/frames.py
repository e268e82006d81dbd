"""What a rank gives to an exchange: a few bytes, or how many there are."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

LEAST, MOST, TOGETHER = 256, 4096, 2**18  # bytes of a frame, and of those of all ranks
_HEAD = struct.Struct("<?IQ")


def size_of(ranks: int) -> int:
    """Bytes of each frame of so many ranks, of which every rank gets all."""
    return max(LEAST, min(MOST, TOGETHER // ranks))


def room_of(ranks: int) -> int:
    """Bytes of content for which a frame has room; more of it follows in an exchange of its own."""
    return size_of(ranks) - _HEAD.size


@dataclass(frozen=True)
class Frame:
    """What one rank says.

    Args:
        has_failed: the content is then its error.
        code: of what it is about to exchange.
        length: of the content, in bytes.
        content: as much of it as there is room for.
    """

    has_failed: bool
    code: int
    length: int
    content: bytes

    @classmethod
    def of(cls, content: bytes, purpose: str = "", *, has_failed: bool = False) -> Frame:
        """What is given for a purpose, which has to be that of all ranks."""
        return cls(has_failed, zlib.crc32(purpose.encode()), len(content), content)

    @classmethod
    def read(cls, found: bytes) -> Frame:
        """From the bytes of a frame."""
        has_failed, code, length = _HEAD.unpack_from(found)
        return cls(has_failed, code, length, found[_HEAD.size : _HEAD.size + length])

    def written(self, size: int) -> bytes:
        """Its bytes, as many as every frame has."""
        head = _HEAD.pack(self.has_failed, self.code, self.length)
        return (head + self.content[: size - len(head)]).ljust(size, b"\0")
