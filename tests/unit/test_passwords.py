"""Passwords of connection strings, variables and files, as drivers spell them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.passwords import login_secrets, passwords_of
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path


@each_row(
    ("text", "password"),
    [
        ("host=db password='a b\\'c' user=x", "a b'c"),
        ("host=db sslpassword=of-the-key", "of-the-key"),
        ("postgresql://app:p%2Fw@h/x", "p/w"),
        ("postgresql://app@h/x?password=p%2Fw", "p/w"),
        ("postgresql://app@h/x?sslpassword=of-the-key", "of-the-key"),
        ("ecto://app:p@ss@h/x", "p@ss"),  # libpq would read another host, and the message would show the rest
        ("postgresql+asyncpg://app:p%40ss@h/x", "p@ss"),
        ("jdbc:postgresql://h/db?user=a&password=p+w", "p w"),
        ("Host=h;Username=x;Password=a,b;Database=y", "a,b"),
        ("host=x password=broken'quote y=1", "broken'quote"),
    ],
)
def test_a_password_is_found_in_every_spelling(text: str, password: str) -> None:
    assert password in passwords_of(text)
    assert password in login_secrets([text], {})
    assert password in login_secrets([], {"SHOP_DATABASE_URL": text})


@pytest.mark.parametrize("text", ["postgresql://app:app@h/x", "user=app password=app", "host=db", "a=b", "", "\0="])
def test_the_name_of_the_user_is_no_secret(text: str) -> None:
    assert passwords_of(text) == ()


passwords = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: text != "app"
)


@given(passwords)
def test_any_password_in_a_url_or_between_quotes_is_found(password: str) -> None:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    assert password in passwords_of(f"postgresql://app:{quote(password, safe='')}@h/x")
    assert password in passwords_of(f"host=h user=app password='{escaped}'")


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert isinstance(login_secrets([text], {"NAME": text}), tuple)


def test_files_of_libpq_are_read(tmp_path: Path) -> None:
    (tmp_path / ".pgpass").write_text("# comment\nh:1:d:u:first\\:pass\\\\word\nh:1:d:app:app\nbad line\n")
    (tmp_path / "named").write_text("*:*:*:*:second\n")
    (tmp_path / "services").write_text(f"[a]\npassword=third\n[b]\npassfile={tmp_path / 'of-service'}\n")
    (tmp_path / "of-service").write_text("*:*:*:*:fourth\n")
    found = login_secrets(
        [f"host=h passfile={tmp_path / 'named'}"],
        {"HOME": str(tmp_path), "PGSERVICEFILE": str(tmp_path / "services"), "PGPASSWORD": "fifth"},
    )
    assert set(found) == {"first:pass\\word", "second", "third", "fourth", "fifth"}


def test_a_pipe_or_a_folder_in_place_of_a_file_is_ignored(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    assert login_secrets([], {"PGPASSFILE": str(tmp_path / "pipe"), "PGSERVICEFILE": str(tmp_path)}) == ()
