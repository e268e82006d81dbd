"""What a rank gives to an exchange."""

from __future__ import annotations

import pytest

from gradnoise.ranks.frames import Frame, room_of, size_of

SIZE, ROOM = size_of(2), room_of(2)


@pytest.mark.parametrize("length", [0, 1, ROOM, ROOM + 1, 10 * ROOM])
def test_a_frame_is_read_as_it_was_written(length: int) -> None:
    content = bytes(k % 251 for k in range(length))
    written = Frame.of(content, "a sum").written(SIZE)
    assert len(written) == SIZE
    frame = Frame.read(written)
    assert frame.length == length
    assert frame.content == content[:ROOM]
    assert not frame.has_failed


def test_purposes_are_told_apart() -> None:
    first, second, again = (Frame.of(b"", purpose) for purpose in ("a", "b", "a"))
    assert first.code == again.code != second.code


def test_an_error_is_marked() -> None:
    assert Frame.read(Frame.of(b"why", has_failed=True).written(SIZE)).has_failed


def test_many_ranks_get_short_frames() -> None:
    assert [size_of(ranks) for ranks in (2, 64, 128, 1024, 10**6)] == [4096, 4096, 2048, 256, 256]
    assert room_of(10**6) > 0
