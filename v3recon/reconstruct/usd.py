"""A reconstructed face as one .usdz file: head, texture, expressions as blend shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from v3recon.io.usd import load_usd, write_usdz
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.glb import TextureKind, face_mesh, face_texture
from v3recon.reconstruct.texture import Appearance


def write_face_usd(
    path: str | Path,
    face: Face,
    *,
    texture: TextureKind | np.ndarray = "photo",
    texture_size: int = 1024,
    image: np.ndarray | None = None,
    appearance: Appearance | None = None,
    name: str | None = None,
) -> None:
    """Write a face that programs with USD open as it is; mesh and texture are those of its .glb.

    The head stands upright at the origin, unposed: metres, y up, its front toward +z. Its identity
    is in the meshes. Its expression is the weights of the blend shapes, see `face_mesh`.

    Args:
        path: the .usdz file; its folder exists.
        face: the face.
        texture: see `write_face_glb`.
        texture_size: side of the texture, texels.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        appearance: of the face, where it is known already.
        name: of the default prim, in ASCII; default the photo's.

    Raises:
        ValueError: if usd-core is not installed, the photo is needed and missing, or the texture is
            of no known kind.
    """
    load_usd()  # before the work
    picture = face_texture(face, texture, texture_size, image=image, appearance=appearance)
    write_usdz(path, face_mesh(face.coeffs, face.model, picture, name=name or face.batch.name))
