from __future__ import annotations

import codecs

import pytest

from v3recon.io.tables import read_table, write_table

ROWS = [{"file": "a.jpg", "split": "train"}, {"file": "Grüße, 1.jpg", "split": "val"}]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_of_spreadsheets(tmp_path, separator, encoding, end):
    lines = ["file,split", "a.jpg,train", '"Grüße| 1.jpg",val', ""]
    text = end.join(lines).replace(",", separator).replace("|", ",")
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "a.csv") == ROWS


def test_short_long_and_blank_rows(tmp_path):
    (tmp_path / "a.csv").write_text(" file ,split\n\na.jpg\nb.jpg,val,more\n,\n")
    assert read_table(tmp_path / "a.csv") == [
        {"file": "a.jpg", "split": ""},
        {"file": "b.jpg", "split": "val"},
    ]


@pytest.mark.parametrize(
    "data", [b"file\n\xff\xfa\n", b"file\n\0\n", codecs.BOM_UTF16_LE + b"abc", b"\x80\x81"]
)
def test_no_text(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.csv: "):
        read_table(tmp_path / "a.csv")


def test_empty_and_absent(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")
    assert read_table(tmp_path / "a.csv") == []
    with pytest.raises(ValueError, match="no such file"):
        read_table(tmp_path / "b.csv")


def test_written_tables_are_read_again(tmp_path):
    path = tmp_path / "a.csv"
    write_table(path, ("file", "split"), [*ROWS, {"file": "x\udcff.jpg"}])
    assert read_table(path) == [*ROWS, {"file": "x\\udcff.jpg", "split": ""}]
