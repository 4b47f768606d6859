"""Faces of random coefficients before a photo, for the tests of what is written of them."""

from __future__ import annotations

import numpy as np
import torch
from skimage.data import astronaut

from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.face_models.surfaces import surface_faces
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.types import FaceCoeffs


def drawn_face(name: str, path=None) -> Face:
    """A face of random identity and expression."""
    model, camera = load_face_model(name, path), Camera()
    generator = torch.Generator().manual_seed(0)
    zeros = FaceCoeffs.zeros(1, model.sizes)
    exp = torch.rand(1, model.sizes[1], generator=generator) * 0.4
    coeffs = FaceCoeffs(
        torch.randn(1, model.sizes[0], generator=generator) * 0.5,
        exp,
        torch.randn(1, model.sizes[2], generator=generator) * 0.3,
        torch.tensor([[0.1, 0.3, 0.0]]),
        zeros.sh,
        zeros.trans,
    )
    image = np.ascontiguousarray(astronaut()[:300])
    crop = crop_of_square(torch.tensor([220.0, 110.0]), 200.0, camera)
    return make_faces(coeffs, model, camera, [crop], [image], [None])[0]


def neutral_corners(face: Face) -> np.ndarray:
    """[F, 3, 3] metres, corners of the unposed face in the order of the file's parts."""
    vertices = face.decoded.model_vertices[0].numpy() * 0.1
    rows = torch.cat(list(surface_faces(face.model).values()))
    return vertices[face.model.faces[rows].numpy()]
