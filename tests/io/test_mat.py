from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import scipy.io

from v3recon.io.mat import read_mat

TYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(
    shape: tuple[int, ...], values: bytes, *, class_id=6, stored=9, name=b"lm", order="<"
) -> bytes:
    body = element(6, struct.pack(f"{order}II", class_id, 0), order)
    body += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    body += element(1, name, order) + element(stored, values, order)
    return element(14, body, order)


def header(order: str = "<") -> bytes:
    mark = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_scipys_files_read_as_scipy_reads_them(tmp_path, kind, packed):
    random = np.random.default_rng(0)
    values = {
        "text": "hello",
        "cells": np.array([[1, "a"]], object),
        "lm": (random.random((7, 5)) * 100).astype(kind),
        "cube": np.arange(24).reshape(2, 3, 4).astype(kind),
        "one": np.array([[3]], kind),
        "none": np.zeros((0, 3), kind),
    }
    scipy.io.savemat(tmp_path / "a.mat", values, do_compression=packed)
    names = ("lm", "cube", "one", "none")
    found, expected = read_mat(tmp_path / "a.mat", names), scipy.io.loadmat(tmp_path / "a.mat")
    assert set(found) == set(names)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == expected[name].dtype and found[name].flags.writeable


def test_other_byte_order_and_narrow_storage(tmp_path):
    """MATLAB stores doubles that are small whole numbers as bytes."""
    path = tmp_path / "a.mat"
    path.write_bytes(header(">") + matrix((2, 2), bytes([1, 2, 3, 4]), stored=2, order=">"))
    np.testing.assert_array_equal(read_mat(path, ["lm"])["lm"], [[1.0, 3.0], [2.0, 4.0]])
    assert read_mat(path, ["lm"])["lm"].dtype == np.float64


def test_no_file_and_foreign_files(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(ValueError, match=r"a\.mat: no such file"):
        read_mat(path, ["lm"])
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512))
    with pytest.raises(ValueError, match="save -v7"):
        read_mat(path, ["lm"])
    scipy.io.savemat(path, {"lm": "text", "c": np.zeros(3, complex)})
    with pytest.raises(ValueError, match="'lm' is text"):
        read_mat(path, ["lm"])
    with pytest.raises(ValueError, match="real numbers"):
        read_mat(path, ["c"])
    with pytest.raises(ValueError, match="lacks variable 'x'; found: lm, c"):
        read_mat(path, ["x"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (matrix((1 << 30, 1 << 30), b""), "too large"),
        (matrix((1000, 1000), bytes(80)), "damaged"),
        (matrix((-3, 4), bytes(96)), "shape"),
        (matrix((3,), bytes(24)), "shape"),
        (matrix((3, 1), bytes(24), stored=99), "type 99"),
        (struct.pack("<II", 14, 1 << 31), "ends inside"),
        (element(14, element(6, bytes(8)) + element(5, bytes(1 << 14))), "shape of"),
        (element(15, b"no zlib data"), "damaged"),
        (element(15, zlib.compress(b"")), "ends inside"),
    ],
)
def test_promises_that_files_do_not_keep(tmp_path, content, reason):
    path = tmp_path / "a.mat"
    path.write_bytes(header() + content)
    with pytest.raises(ValueError, match=rf"a\.mat: .*{reason}"):
        read_mat(path, ["lm"])


def test_a_packed_variable_inflates_no_further_than_it_is_read(tmp_path):
    """100 MB of zeros in 100 kB: neither passed over nor read does it fill the memory."""
    bomb = zlib.compress(matrix((12_500_000, 1), bytes(100_000_000), name=b"bomb"), 9)
    path = tmp_path / "a.mat"
    path.write_bytes(header() + element(15, bomb) + matrix((1, 1), struct.pack("<d", 5.0)))
    import tracemalloc

    tracemalloc.start()
    assert read_mat(path, ["lm"])["lm"] == 5.0
    with pytest.raises(ValueError, match="too large"):
        read_mat(path, ["bomb"], max_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
