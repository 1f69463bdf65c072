from __future__ import annotations

from web.feed.ring import PIECE_BYTES, START, Piece, Position, Ring


def filled(lines: int, limit_bytes: int = 1000, size: int = 10) -> Ring:
    ring = Ring(limit_bytes)
    for number in range(1, lines + 1):
        ring.append(Position(2, number), b"%0*d" % (size, number))
    return ring


def test_an_empty_ring_has_nothing_after_anything() -> None:
    assert Ring().after(START) is None
    assert Ring().last == START


def test_whoever_stands_somewhere_gets_what_comes_after() -> None:
    ring = filled(5)
    assert ring.after(Position(2, 3)) == Piece(Position(2, 5), b"00000000040000000005")
    assert ring.after(Position(2, 5)) is None
    assert ring.last == Position(2, 5)


def test_positions_follow_the_pipeline_and_not_the_clock() -> None:
    ring = Ring()
    ring.append(Position(1, 9), b"fetch")
    ring.append(Position(2, 1), b"build")
    assert ring.after(Position(1, 9)) == Piece(Position(2, 1), b"build")


def test_what_is_dropped_must_be_read_elsewhere_and_nothing_is_lost_between() -> None:
    ring = filled(150)
    lost = ring.after(START)
    assert lost is not None
    assert lost.data == b""
    found = ring.after(lost.last)
    assert found is not None
    assert found.data.startswith(b"%010d" % (lost.last.line + 1))
    assert found.last == Position(2, 150)
    assert len(found.data) <= 1000


def test_a_line_larger_than_the_ring_is_held_until_the_next() -> None:
    ring = filled(1, limit_bytes=5)
    piece = ring.after(START)
    assert piece is not None
    assert piece.data == b"0000000001"


def test_a_piece_is_bounded_so_that_who_comes_late_holds_no_log() -> None:
    ring = filled(10, limit_bytes=10 * PIECE_BYTES, size=PIECE_BYTES // 4)
    piece = ring.after(START)
    assert piece is not None
    assert (piece.last, len(piece.data)) == (Position(2, 4), PIECE_BYTES)


def test_all_who_keep_up_share_the_same_bytes() -> None:
    ring = filled(5)
    assert ring.after(Position(2, 3)) is ring.after(Position(2, 3))
    ring.append(Position(2, 6), b"new")
    piece = ring.after(Position(2, 3))
    assert piece is not None
    assert piece.data.endswith(b"new")
