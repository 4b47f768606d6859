"""Landmark choice against hand-made points, and the sets of the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.fitting.photoface import landmark_sets


@pytest.fixture(scope="module")
def photoface() -> LinearFaceModel:
    return load_face_model("photoface")


def mean_vertices(model: LinearFaceModel) -> np.ndarray:
    return model.vertices(*(torch.zeros(1, size) for size in model.sizes[:2]))[0].numpy()


def test_points_start_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.pts"
    path.write_text("version: 1\nn_points: 2\n{\n1.0 1.0\n3.5 2.25\n}\n")
    np.testing.assert_allclose(landmark_sets.read_points(path), [[0, 0], [2.5, 1.25]])
    path.write_text("1 2 3")
    with pytest.raises(ValueError, match=r"a\.pts is not"):
        landmark_sets.read_points(path)


def test_mean_squared_distances_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    control, truth = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 3, 2))
    operator = sparse.csr_matrix(rng.random((7, 5)) * (rng.random((7, 5)) < 0.6) + 0.01)
    operator = sparse.diags(1 / operator.toarray().sum(1)) @ operator  # weights of means
    size = np.array([1.0, 2.0, 3.0, 4.0])
    cost = landmark_sets.mean_squared_distances(control, operator, truth, size)
    for vertex in range(7):
        for point in range(3):
            offsets = [
                ((operator @ c)[vertex] - t[point]) / s
                for c, t, s in zip(control, truth, size, strict=True)
            ]
            expected = np.mean([offset @ offset for offset in offsets])
            assert cost[vertex, point] == pytest.approx(expected)


def test_choice_finds_the_vertices_that_were_marked() -> None:
    rng = np.random.default_rng(1)
    count = 80  # 40 mirror pairs, then 10 vertices on the midline
    right = rng.normal(size=(count // 2, 2)) - [4, 0]
    middle = np.stack([np.zeros(10), np.linspace(-2, 2, 10)], 1)
    mean = np.concatenate([right, right * [-1, 1], middle])
    mirror = np.concatenate([np.arange(40, 80), np.arange(40), np.arange(80, 90)])
    marked = np.zeros(68, int)
    pairs = [i for i in range(68) if landmark_sets.MIRROR_68[i] > i]
    alone = [i for i in range(68) if landmark_sets.MIRROR_68[i] == i]
    marked[pairs] = rng.permutation(40)[: len(pairs)]
    marked[landmark_sets.MIRROR_68[pairs]] = mirror[marked[pairs]]
    marked[alone] = 80 + np.arange(len(alone))
    photos = mean * rng.uniform(40, 90, (30, 1, 1)) + rng.uniform(50, 90, (30, 1, 2))
    truth = photos[:, marked] + rng.normal(0, 0.5, (30, 68, 2))
    identity = sparse.identity(len(mean), format="csr")
    allowed = np.ones(len(mean), bool)
    chosen = landmark_sets.choose_68(photos, np.zeros(30), truth, identity, mirror, allowed)
    assert (chosen == marked).all()
    with pytest.raises(ValueError, match="at least 10"):
        landmark_sets.choose_68(photos[:9], np.zeros(9), truth[:9], identity, mirror, allowed)


def test_resample_keeps_ends_and_equal_steps() -> None:
    line = np.array([[0.0, 0], [3, 0], [3, 1]])
    points = landmark_sets.resample(line, 5)
    np.testing.assert_allclose(points, [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])


def test_shipped_sets_are_symmetric(photoface: LinearFaceModel) -> None:
    mirror = photoface.mirror
    index = photoface.landmarks_68
    assert (mirror[index] == index[torch.from_numpy(landmark_sets.MIRROR_68)]).all()
    contour = photoface.landmarks_106[:33]
    assert (mirror[contour] == contour.flip(0)).all()
    assert (contour[0::2] == index[:17]).all()
    assert (
        mirror[photoface.landmarks_134[:34]].sort()[0] == photoface.landmarks_134[:34].sort()[0]
    ).all()


def test_shipped_sets_lie_on_their_parts(photoface: LinearFaceModel) -> None:
    vertices = mean_vertices(photoface)
    parts = {
        name: vertices[(photoface.part_labels == number + 1).numpy()]
        for number, name in enumerate(PART_NAMES)
    }
    groups = {
        "right_eyebrow": (photoface.landmarks_106[33:42], photoface.landmarks_134[:17]),
        "left_eyebrow": (photoface.landmarks_106[42:51], photoface.landmarks_134[17:34]),
        "right_eye": (photoface.landmarks_106[66:75], photoface.landmarks_134[34:54]),
        "left_eye": (photoface.landmarks_106[75:84], photoface.landmarks_134[54:74]),
    }
    for name, sets in groups.items():
        for index in sets:
            assert len(set(index.tolist())) == len(index)
            gaps = np.linalg.norm(vertices[index.numpy(), None] - parts[name][None], axis=2)
            assert gaps.min(1).max() < 0.06, name  # decimetres
    lips = np.concatenate([parts["up_lip"], parts["down_lip"]])
    gaps = np.linalg.norm(vertices[photoface.landmarks_134[74:].numpy(), None] - lips, axis=2)
    assert gaps.min(1).max() < 0.06
    inner = photoface.landmarks_134[106:]
    assert (photoface.part_labels[inner[1:14]] == PART_NAMES.index("up_lip") + 1).all()
    assert (photoface.part_labels[inner[15:]] == PART_NAMES.index("down_lip") + 1).all()


def test_shipped_contour_lines_are_disjoint_and_start_on_the_contour(
    photoface: LinearFaceModel,
) -> None:
    lines = [line[line >= 0] for line in photoface.contour_lines]
    every = torch.cat(lines)
    assert len(lines) == 33 and len(every) == len(every.unique())
    assert [int(line[0]) for line in lines] == photoface.landmarks_106[:33].tolist()
    x = torch.from_numpy(mean_vertices(photoface))[:, 0]
    assert all((x[line] < 0).all() for line in lines[:16])  # the person's right
    assert all((x[line] > 0).all() for line in lines[17:])
    assert min(len(line) for line in lines[:16]) > 20
