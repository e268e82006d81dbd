"""What a rank gives to an exchange: a few bytes, or how many there are."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIZE = 4096  # bytes
_HEAD = struct.Struct("<?IQ")
ROOM = SIZE - _HEAD.size  # for the content; more of it follows in an exchange of its own


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
        return cls(has_failed, zlib.crc32(purpose.encode()), len(content), content[:ROOM])

    @classmethod
    def read(cls, found: bytes) -> Frame:
        """From the bytes of a frame."""
        has_failed, code, length = _HEAD.unpack_from(found)
        end = _HEAD.size + min(length, ROOM)
        return cls(has_failed, code, length, found[_HEAD.size : end])

    def written(self) -> bytes:
        """Its bytes, as many as every frame has."""
        head = _HEAD.pack(self.has_failed, self.code, self.length)
        return (head + self.content).ljust(SIZE, b"\0")
