"""The reader of a link: messages pass unchanged, and exactly the chosen commits are lost."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.wire.commit_loss import CommitLoss, CommitReader, Lost
from harness.wire.link import ResetConnection
from harness.wire.messages import encoded, packed
from harness.wire.relay import Withholder

STARTUP = struct.pack("!ii", 8 + len(b"user\0ada\0\0"), 3 << 16) + b"user\0ada\0\0"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
LOGGED_IN = packed([(b"R", struct.pack("!i", 0)), (b"Z", b"I")])

#: messages that execute no COMMIT
HARMLESS = st.sampled_from(
    [
        packed([(b"Q", encoded("BEGIN"))]),
        packed([(b"Q", encoded("SELECT 'commitment', endless FROM commits"))]),
        packed([(b"P", encoded("s") + encoded("INSERT INTO t VALUES (1)") + b"\0\0")]),
        packed([(b"B", encoded("") + encoded("s") + bytes(6)), (b"E", encoded("") + bytes(4))]),
        packed([(b"P", encoded("c") + encoded("COMMIT") + b"\0\0"), (b"S", b"")]),
        packed([(b"d", b"COMMIT;"), (b"c", b"")]),
    ]
)
#: messages that execute one
COMMITTING = st.sampled_from(
    [
        packed([(b"Q", encoded("COMMIT"))]),
        packed([(b"Q", encoded(" commit and chain"))]),
        packed([(b"Q", encoded("INSERT INTO t VALUES (1); END"))]),
        packed(
            [
                (b"P", encoded("") + encoded("COMMIT") + b"\0\0"),
                (b"B", encoded("") + encoded("") + bytes(6)),
                (b"E", encoded("") + bytes(4)),
                (b"S", b""),
            ]
        ),
    ]
)
CUTS = st.lists(st.integers(min_value=1, max_value=40), max_size=30)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces = []
    for length in cuts:
        pieces.append(data[:length])
        data = data[length:]
    return [piece for piece in (*pieces, data) if piece]


def sent_by(reader: CommitReader, data: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """Return what passes on to the server, and whether the connection was reset."""
    out = b""
    for piece in pieces_of(data, cuts):
        try:
            out += reader.requests(piece)[0]
        except ResetConnection:
            return out, True
    return out, False


def heard_from(reader: CommitReader, data: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    out = b""
    for piece in pieces_of(data, cuts):
        try:
            out += reader.answers(piece)
        except ResetConnection:
            return out, True
    return out, False


@given(messages=st.lists(st.one_of(HARMLESS, COMMITTING)), cuts=CUTS)
def test_all_messages_pass_unchanged_while_no_commit_is_chosen(messages: list[bytes], cuts: list[int]) -> None:
    reader = CommitLoss().reader()
    sent = STARTUP + b"".join(messages)
    assert sent_by(reader, sent, cuts) == (sent, False)
    heard = LOGGED_IN + packed([(b"C", encoded("COMMIT")), (b"Z", b"I")])
    assert heard_from(reader, heard, cuts) == (heard, False)


@given(before=st.lists(HARMLESS), commit=COMMITTING, after=st.lists(HARMLESS), cuts=CUTS)
def test_a_chosen_commit_does_not_reach_the_server(
    before: list[bytes], commit: bytes, after: list[bytes], cuts: list[int]
) -> None:
    loss = CommitLoss()
    loss.arm("request", 1)
    reader = loss.reader()
    sent, reset = sent_by(reader, STARTUP + b"".join([*before, commit, *after]), cuts)
    assert (reset, loss.lost) == (True, 1)
    # nothing after the message that executes the COMMIT, and not all of that either
    assert (STARTUP + b"".join(before) + commit).startswith(sent)
    assert len(sent) < len(STARTUP + b"".join(before) + commit)
    # the next connection's COMMIT is not chosen any more
    whole = STARTUP + commit
    assert sent_by(loss.reader(), whole, cuts) == (whole, False)


@given(commit=COMMITTING, cuts=CUTS)
def test_a_chosen_answer_does_not_reach_the_client(commit: bytes, cuts: list[int]) -> None:
    loss = CommitLoss()
    loss.arm("answer", 1)
    reader = loss.reader()
    assert sent_by(reader, STARTUP + commit, cuts) == (STARTUP + commit, False)
    answer = packed([(b"C", encoded("INSERT 0 1")), (b"C", encoded("COMMIT")), (b"Z", b"I")])
    heard, reset = heard_from(reader, LOGGED_IN + answer, cuts)
    assert (reset, loss.lost) == (True, 1)
    assert b"COMMIT" not in heard


@pytest.mark.parametrize("answer", [(b"C", encoded("ROLLBACK")), (b"E", b"SERROR\0C40001\0Mno\0\0")])
def test_another_commit_is_chosen_in_place_of_one_that_did_not_happen(answer: tuple[bytes, bytes]) -> None:
    loss = CommitLoss()
    loss.arm("answer", 1)
    for outcome, reset in ((answer, False), ((b"C", encoded("COMMIT")), True)):
        reader = loss.reader()
        sent_by(reader, STARTUP + packed([(b"Q", encoded("COMMIT"))]), [])
        assert heard_from(reader, LOGGED_IN + packed([outcome, (b"Z", b"I")]), [])[1] is reset
    assert loss.lost == 1


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_nothing_is_lost_after_the_end(lost: Lost) -> None:
    loss = CommitLoss()
    loss.arm(lost, 9)
    loss.disarm()
    reader = loss.reader()
    commit = STARTUP + packed([(b"Q", encoded("COMMIT"))])
    assert sent_by(reader, commit, []) == (commit, False)
    answer = LOGGED_IN + packed([(b"C", encoded("COMMIT"))])
    assert heard_from(reader, answer, []) == (answer, False)
    assert loss.lost == 0


@given(data=st.binary(max_size=200), answers=st.binary(max_size=200), cuts=CUTS)
def test_what_is_encrypted_passes_unread(data: bytes, answers: bytes, cuts: list[int]) -> None:
    loss = CommitLoss()
    loss.arm("request", 9)
    reader = loss.reader()
    assert sent_by(reader, SSL_REQUEST, cuts) == (SSL_REQUEST, False)
    assert heard_from(reader, b"S" + answers, cuts) == (b"S" + answers, False)
    tail = data + packed([(b"Q", encoded("COMMIT"))])
    assert sent_by(reader, tail, cuts) == (tail, False)


@pytest.mark.parametrize("refusal", [b"N", b""])
def test_messages_are_read_after_encryption_was_refused(refusal: bytes) -> None:
    loss = CommitLoss()
    loss.arm("request", 1)
    reader = loss.reader()
    if refusal:
        assert sent_by(reader, SSL_REQUEST, [4]) == (SSL_REQUEST, False)
        assert heard_from(reader, refusal + LOGGED_IN, [1]) == (refusal + LOGGED_IN, False)
    assert sent_by(reader, STARTUP + packed([(b"Q", encoded("COMMIT"))]), [])[1]


@given(data=st.binary(max_size=300), answers=st.binary(max_size=300), cuts=CUTS)
def test_any_bytes_pass_or_are_the_beginning_of_a_message(data: bytes, answers: bytes, cuts: list[int]) -> None:
    reader = CommitLoss().reader()
    sent, reset = sent_by(reader, data, cuts)
    assert not reset
    assert data.startswith(sent)
    heard, reset = heard_from(reader, answers, cuts)
    assert not reset
    assert answers.startswith(heard)


@given(cuts=CUTS)
def test_a_relay_refuses_encryption_and_withholds_messages(cuts: list[int]) -> None:
    withholder = Withholder(b"S", at_login=False)
    assert withholder.requests(SSL_REQUEST) == (b"", b"N")
    assert withholder.requests(STARTUP) == (STARTUP, b"")
    login = packed([(b"S", b"TimeZone\0UTC\0"), (b"Z", b"I")])
    later = packed([(b"S", b"TimeZone\0GMT\0"), (b"C", encoded("SET"))])
    assert b"".join(map(withholder.answers, pieces_of(login, cuts))) == login
    assert b"".join(map(withholder.answers, pieces_of(later, cuts))) == packed([(b"C", encoded("SET"))])
