"""SHA-256 of uploads, also of bodies in AWS's chunks."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from harness.ingest.digests import AwsChunks, BodyDigest, Declared

#: cuts a body into pieces of these sizes, again and again
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def in_pieces(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces, number = [], 0
    while body:
        size = sizes[number % len(sizes)]
        pieces.append(body[:size])
        body, number = body[size:], number + 1
    return pieces


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), SIZES, st.booleans())
def test_chunks_are_decoded_however_they_arrive(chunks: list[bytes], sizes: list[int], has_trailer: bool) -> None:
    body = b"".join(b"%x;chunk-signature=abc\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    body += b"0;chunk-signature=abc\r\n" + (b"X-Amz-Checksum-Sha256: abc=\r\n" if has_trailer else b"") + b"\r\n"
    decoder = AwsChunks()
    assert b"".join(decoder.feed(piece) for piece in in_pieces(body, sizes)) == b"".join(chunks)
    assert decoder.is_complete
    assert decoder.trailer == ({"x-amz-checksum-sha256": "abc="} if has_trailer else {})


@given(st.binary(max_size=300), SIZES)
def test_invalid_chunks_give_no_more_than_they_have(body: bytes, sizes: list[int]) -> None:
    decoder = AwsChunks()
    content = b"".join(decoder.feed(piece) for piece in in_pieces(body, sizes))
    assert len(content) <= len(body)


def test_an_endless_line_is_not_kept() -> None:
    decoder = AwsChunks()
    for _ in range(10):
        decoder.feed(b"x" * 5000)
    assert not decoder.is_complete
    decoder.feed(b"0\r\n\r\n")
    assert not decoder.is_complete


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_digest_agrees_with_its_own_body_only(body: bytes, other: bytes) -> None:
    declared = Declared.of("PUT", {"x-amz-content-sha256": sha256(body).hexdigest()})
    digest = BodyDigest(declared)
    digest.update(other)
    assert (digest.refusal() is None) == (body == other)


def test_headers_without_a_digest_declare_nothing() -> None:
    for headers in ({}, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, {"x-amz-trailer": "x-amz-checksum-crc32"}):
        assert not Declared.of("PUT", headers).is_checkable
