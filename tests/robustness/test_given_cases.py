"""The small inputs of ../shared/cases that once failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from v3recon.evaluation.landmark_scores import read_points_file
from v3recon.face_models.bfm import load_similarity_landmarks
from v3recon.io.images import read_image
from v3recon.io.obj import read_obj

ROOT = Path(__file__).resolve().parents[2]
READERS = {
    "obj_indexerror.obj": read_obj,
    "points_npy_tokenerror.npy": read_points_file,
    "similarity_mat_unboundlocalerror.mat": load_similarity_landmarks,
    "similarity_mat_crash.mat": load_similarity_landmarks,
}


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(shared_dir, name):
    with pytest.raises(ValueError, match=name) as caught:
        READERS[name](shared_dir / "cases" / name)
    assert "\n" not in str(caught.value)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["width_rational", "make_as_rational", "resolution_as_ascii"])
def test_photos_with_odd_tags(shared_dir, name):
    found = read_image(shared_dir / "cases" / f"{name}.jpg")
    upright = read_image(ROOT / "examples" / "astronaut.jpg")
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3, "orientation is obeyed"
