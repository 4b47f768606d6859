from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from v3recon.io.names import MAX_BYTES, ascii_name_of, file_name_of


@pytest.mark.parametrize(
    "name", ["me", "IMG_0001", "a b", "Grüße", "中文照片", "a.b", "a-b", "x" * 120]
)
def test_good_names_stay(name):
    assert file_name_of(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("  a", "_a"),
        ("a ", "a_"),
        ("-rf", "_rf"),
        ("--help", "_help"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("a\\b", "a_b"),
        ("a/b", "a_b"),
        ("a:b?", "a_b_"),
        ("nul", "_nul"),
        ("COM1", "_COM1"),
        ("a\nb\x00c", "a_b_c"),
        (os.fsdecode(b"a\xffb"), "a_b"),
    ],
)
def test_bad_names(name, expected):
    assert file_name_of(name) == expected


def test_any_text_gives_a_name_that_can_be_used(tmp_path):
    random = np.random.default_rng(0)
    letters = [chr(n) for n in (*range(0, 0x250), *range(0x4E00, 0x4E20), 0xDCFF, 0xD800, 0x1F600)]
    letters += list(" .-_/\\") * 20
    for _ in range(400):
        text = "".join(random.choice(letters, random.integers(0, 260)))
        for name in (file_name_of(text), ascii_name_of(text)):
            assert name not in ("", ".", "..") and name[0] not in " .-" and name[-1] not in " ."
            assert len(name.encode("utf-8")) <= MAX_BYTES + 9 and name == Path(name).name
        assert ascii_name_of(text).isascii() and " " not in ascii_name_of(text)
        (tmp_path / file_name_of(text)).write_bytes(b"")
        assert file_name_of(file_name_of(text)) == file_name_of(text)


def test_long_names_stay_apart():
    first, second = "é" * 115 + "a", "é" * 115 + "b"
    assert file_name_of(first) != file_name_of(second)
    assert len(file_name_of(first).encode()) <= MAX_BYTES


def test_ascii_names_stay_apart():
    assert ascii_name_of("me") == "me"
    assert len({ascii_name_of(name) for name in ("a b", "a_b", "a  b", "ä", "ö", "中")}) == 6
