from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

from v3recon.io.tensors import read_tensor_file


def test_round_trip(tmp_path):
    content = {"a": torch.rand(3, 4), "b": {"c": [torch.arange(3)], "n": 3, "text": "x"}}
    for new in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        found = read_tensor_file(tmp_path / "a.pth")
        torch.testing.assert_close(found["a"], content["a"])
        torch.testing.assert_close(found["b"]["c"][0], torch.arange(3))
        assert found["b"]["n"] == 3 and found["b"]["text"] == "x"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("new", [True, False])
def test_no_code_runs(tmp_path, new):
    path = tmp_path / "evil.pth"
    torch.save({"net_recon": Evil(tmp_path / "ran")}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"evil\.pth: .*refused"):
        read_tensor_file(path)
    assert not (tmp_path / "ran").exists()


def test_promised_tensors_must_be_there(tmp_path):
    """A stride of zero makes one stored number a tensor of a terabyte."""
    torch.save({"a": torch.zeros(1).expand(1 << 38)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: promises a tensor"):
        read_tensor_file(tmp_path / "a.pth")


def test_sparse_tensors_are_refused(tmp_path):
    sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (1 << 40,))
    torch.save({"a": sparse}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: "):
        read_tensor_file(tmp_path / "a.pth")


def test_archives_that_inflate_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pth").stat().st_size < 50_000
    with pytest.raises(ValueError, match=r"bomb\.pth: inflates to 8 MB"):
        read_tensor_file(tmp_path / "bomb.pth")


def test_what_is_no_dict(tmp_path):
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds list"):
        read_tensor_file(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.pth: "):
        read_tensor_file(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no such file"):
        read_tensor_file(tmp_path / "none.pth")
