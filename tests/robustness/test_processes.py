"""Reconstructors and faces in other processes, threads and numeric settings of the caller."""

from __future__ import annotations

import copy
import pickle
import threading

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torch.utils.data import DataLoader, Dataset

from v3recon import FaceReconstructor
from v3recon.reconstruct.faces import Faces
from v3recon.reconstruct.save import OutputChoice

FEW = OutputChoice(extracted_texture=False, model_texture=False)


@pytest.fixture(scope="module")
def reconstructor() -> FaceReconstructor:
    return FaceReconstructor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def faces(reconstructor) -> Faces:
    return reconstructor(astronaut())


class Photos(Dataset):
    """A data set that reconstructs photos in the loader's worker processes."""

    def __init__(self, reconstructor: FaceReconstructor) -> None:
        self.reconstructor = reconstructor

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Faces:
        torch.set_num_threads(1)
        return self.reconstructor(np.roll(astronaut(), 8 * index, axis=1))


def _first(batch: list[Faces]) -> Faces:
    return batch[0]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_of_a_data_loader(reconstructor, faces, method):
    loader = DataLoader(
        Photos(reconstructor),
        batch_size=1,
        num_workers=1,
        collate_fn=_first,
        multiprocessing_context=method,
        timeout=60,
    )
    found = list(loader)
    torch.testing.assert_close(found[0].landmarks_68, faces.landmarks_68, atol=0.05, rtol=0)
    shift = found[1].landmarks_68 - found[0].landmarks_68
    assert float(shift[..., 0].mean()) == pytest.approx(8, abs=1)


def test_faces_are_small_and_whole_after_pickling(faces):
    data = pickle.dumps(faces)
    assert len(data) < 1_000_000 * len(faces)
    again = pickle.loads(data)
    torch.testing.assert_close(again.vertices, faces.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(copy.deepcopy(faces).vertices, faces.vertices)


def test_default_type_of_the_caller(reconstructor, faces, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        found = reconstructor(astronaut())
        found.save(tmp_path, choice=OutputChoice(texture_size=64))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.vertices.dtype == torch.float32
    torch.testing.assert_close(found.landmarks_68, faces.landmarks_68, atol=0.05, rtol=0)


def test_autocast_around_the_call(reconstructor, faces, tmp_path):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = reconstructor(astronaut())
        found.save(tmp_path, choice=OutputChoice(texture_size=64))
        found.parts()
    torch.testing.assert_close(found.landmarks_68, faces.landmarks_68, atol=0.05, rtol=0)


def test_threads_leave_the_settings_of_the_process(faces, tmp_path):
    before = torch.get_num_threads(), cv2.getNumThreads()
    workers = [
        threading.Thread(target=faces.save, args=(tmp_path / str(n),), kwargs={"choice": FEW})
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    seen = []
    late = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert seen == [before[0]]
