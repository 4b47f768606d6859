from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from v3recon.io.arrays import read_npy, read_npz

ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.float16).reshape(3, 4)),
    np.array(3),
    np.zeros((0, 5), np.int8),
    np.array(["a", "Grüße", "中文"]),
    np.array([b"ab", b"c"]),
    np.array([True, False]),
    np.arange(5, dtype=">i4"),
    np.array(2**60, np.uint64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_read_as_numpy_reads_them(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, np.load(tmp_path / "a.npy"))
    assert found.dtype == array.dtype and found.shape == array.shape
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.arange(3))
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["x"], array)
    assert list(read_npz(tmp_path / "a.npz", ["y"])) == ["y"]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(tmp_path, version):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(4), version)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), np.arange(4))


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_header_of_python_2(tmp_path):
    text = "{'descr': '<i2', 'fortran_order': False, 'shape': (3L, 1L), }"
    (tmp_path / "a.npy").write_bytes(npy(text, bytes([1, 0, 2, 0, 3, 0])))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), [[1], [2], [3]])


HOSTILE = {
    "huge": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9), }"),
    "huge letters": npy("{'descr': '<U999999999', 'fortran_order': False, 'shape': (9,), }"),
    "brackets": npy("{'descr': '<f8', 'shape': (" + "(" * 5000),
    "code": npy("__import__('os').system('true')"),
    "structure": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
    "short": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", bytes(20)),
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
    "letters": npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff" * 4),
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path, name):
    path = tmp_path / "bad.npy"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"bad\.npy: "):
        read_npy(path)
    packed = tmp_path / "bad.npz"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", HOSTILE[name])
    with pytest.raises(ValueError, match=r"bad\.npz: array 'x' "):
        read_npz(packed)


def test_archives_that_inflate_are_refused_before_they_do(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(4_000_000))
    assert path.stat().st_size < 100_000
    assert read_npz(path)["x"].shape == (4_000_000,)
    with pytest.raises(ValueError, match=r"bomb\.npz: inflates to 32 MB"):
        read_npz(path, max_bytes=10_000_000)


def test_archives_that_lie_about_their_sizes(tmp_path):
    """The directory says 128 bytes, the data would be a million."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(125_000))
    data = bytearray(buffer.getvalue())
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = (256).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz: "):
        read_npz(tmp_path / "a.npz")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.npz: no such file"):
        read_npz(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", first=1)
    with pytest.raises(ValueError, match=r"lacks the array 'second'; found: first"):
        read_npz(tmp_path / "a.npz", ["first", "second"])
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"b\.npz: not a \.npz file"):
        read_npz(tmp_path / "b.npz")
