from __future__ import annotations

import numpy as np

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.mesh_labels import choose_mesh, polygon_labels, repair_sides_by_mesh

MESH = load_face_mesh()
SIZE = 200
POINTS = MESH.mean * np.array([55.0, -55, 55]) + np.array([100.0, 100, 0], np.float32)


def test_polygons_have_all_parts_on_their_sides():
    labels = polygon_labels(POINTS, SIZE)
    assert set(np.unique(labels)) == set(range(9))
    for label, side in ((1, -1), (2, 1), (3, -1), (4, 1)):  # the person's right, viewer's left
        assert np.sign(np.nonzero(labels == label)[1].mean() - 100) == side
    assert np.nonzero(labels == 6)[0].mean() < np.nonzero(labels == 7)[0].mean()
    assert labels[int(POINTS[4, 1]), 100] == 5


def test_exchanged_sides_of_a_mask_are_repaired():
    labels = polygon_labels(POINTS, SIZE)
    np.testing.assert_array_equal(repair_sides_by_mesh(labels, POINTS), labels)
    exchanged = np.array([0, 2, 1, 4, 3, 5, 6, 7, 8], np.uint8)[labels]
    np.testing.assert_array_equal(repair_sides_by_mesh(exchanged, POINTS), labels)
    one_eye = np.where(labels == 1, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(repair_sides_by_mesh(one_eye, POINTS), (labels == 1) * 1)
    empty = np.zeros_like(labels)
    np.testing.assert_array_equal(repair_sides_by_mesh(empty, POINTS), empty)


def test_wrong_face_is_not_taken():
    """A detection far from the hand-made points or the mask is of somebody else."""
    moved = POINTS + np.array([60, 0, 0])
    shape = (SIZE, SIZE, 3)
    hand, mask = POINTS[MESH.landmarks_68, :2], polygon_labels(POINTS, SIZE)
    for given in ((hand, None), (None, mask)):
        assert choose_mesh([moved], *given, shape) is None
        np.testing.assert_array_equal(choose_mesh([moved, POINTS], *given, shape), POINTS)
    np.testing.assert_array_equal(choose_mesh([moved, POINTS], None, None, shape), POINTS)
    assert choose_mesh([], hand, None, shape) is None
