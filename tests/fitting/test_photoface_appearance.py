"""The glue between photos and arrays."""

from __future__ import annotations

import numpy as np

from v3recon.fitting.photoface.appearance import coarsen
from v3recon.fitting.photoface.subdivision import subdivide


def test_coarsen_undoes_a_subdivision() -> None:
    faces = np.array([[0, 1, 2], [1, 0, 3]])  # a kite, symmetric about the edge 0-1
    mirror = np.array([0, 1, 3, 2])
    levels = subdivide(faces, mirror, np.zeros((0, 2), int), np.zeros(0, int), 2)
    coarse, parents = coarsen(levels[1].faces)
    assert (coarse == levels[0].faces).all()
    assert (np.sort(parents, 1) == np.sort(levels[1].parents, 1)).all()
