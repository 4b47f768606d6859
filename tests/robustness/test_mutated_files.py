"""Damaged files of every kind: one sentence that names the file, never another error."""

from __future__ import annotations

import numpy as np
import pytest
from formats import FORMATS
from mutations import Format, mutate, mutations, try_reader

SLOW = {
    "head .npz": 8,
    "description": 10,
    "model .npz": 12,
    "face_model.npy": 60,
}
PER_FORMAT = 160


@pytest.mark.parametrize("kind", FORMATS, ids=[kind.name for kind in FORMATS])
def test_mutated_files_are_answered(tmp_path, kind):
    paths = kind.write(tmp_path)
    faults, refused = [], 0
    for number, path in enumerate(paths):
        count = SLOW.get(kind.name, PER_FORMAT) // len(paths)
        for mutated in mutations(path, count, seed=number):
            outcome = try_reader(kind, mutated)
            refused += outcome.refused
            if outcome.fault:
                faults.append(f"{path.name}: {outcome.fault}")
    assert not faults, "\n".join(faults)
    assert refused, "no file was damaged enough to be refused"


@pytest.mark.parametrize("kind", FORMATS, ids=[kind.name for kind in FORMATS])
def test_sound_files_are_read(tmp_path, kind):
    for path in kind.write(tmp_path):
        kind.read(path)


def test_the_checker_can_fail(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")

    def read_with(error: Exception) -> Format:
        def read(_):
            raise error

        return Format("a", lambda folder: [path], read)

    assert try_reader(read_with(IndexError("x")), path).fault.startswith("IndexError")
    assert "does not name" in try_reader(read_with(ValueError("what?")), path).fault
    assert "no sentence" in try_reader(read_with(ValueError("a.bin:\nx")), path).fault
    assert not try_reader(read_with(ValueError("a.bin: damaged")), path).fault
    assert path.read_bytes() == b"abc"


def test_mutations_are_repeatable_and_change_something():
    data = bytes(range(256)) * 8
    first = [mutate(data, np.random.default_rng(seed)) for seed in range(50)]
    assert first == [mutate(data, np.random.default_rng(seed)) for seed in range(50)]
    assert sum(changed != data for changed in first) >= 45
