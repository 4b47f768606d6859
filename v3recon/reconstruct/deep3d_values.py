"""The `.mat` file that Deep3DFaceReconstruction's program (Deng et al. 2019) writes for a face."""

from __future__ import annotations

import numpy as np
import torch

from v3recon.detection.crop import crop_photo
from v3recon.face_models.bfm import five_points
from v3recon.geometry.camera import to_clip
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.texture import Appearance, make_appearance
from v3recon.reconstruct.values import to_numpy
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image

DEEP3D_KEYS = (
    *("cropped_img", "recon_img", "coeff", "face_shape", "face_texture", "face_color"),
    *("lm_68p", "lm_5p"),
)


def deep3d_values(
    face: Face, image: np.ndarray | None = None, appearance: Appearance | None = None
) -> dict[str, np.ndarray]:
    """Values of one face by Deep3D's names, with its shapes, ranges and orientations.

    Args:
        face: the face.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        appearance: of the face, where it is known already.

    Returns:
        `cropped_img` [S, S, 3] uint8 RGB, S = 224; `recon_img` [S, S, 4] float32, the lit face on
        the crop, RGB 0…255 and alpha 0 or 1; `coeff` [1, K] float32, 257 of the official model;
        `face_shape` [V, 3] posed, decimeters, y up; `face_texture` [V, 3] albedo without light and
        `face_color` [V, 3] with light, RGB 0…255, over-lit ones above; `lm_68p` [68, 2] and
        `lm_5p` [5, 2] crop pixels, x right, y down: the five are the detector's where it gave
        them, else those of the 68.
    """
    photo, side = face.batch.photo(image), face.camera.image_size
    appearance = appearance or make_appearance(face.batch)
    crop = crop_photo(photo, face.crop, side, face.camera)
    with full_precision():
        clip = to_clip(face.batch.vertices, face.camera, (side, side))
        fragments = rasterize(clip, face.model.faces, (side, side), face.batch.rasterizer)
        drawn, mask = render_image(appearance.colors, fragments, face.model.faces)
        albedo = face.model.albedo(face.coeffs.alb)[0]
    rgba = torch.cat([255 * drawn.clamp(0, 1), mask], 1)[0].permute(1, 2, 0)
    landmarks = face.decoded.points_2d[0][face.model.landmarks_68]
    five = five_points(landmarks)
    if face.detection is not None and face.detection.points is not None:
        five = face.crop.to_crop(face.detection.points)
    return {
        "cropped_img": np.asarray(crop, np.uint8),
        "recon_img": to_numpy(rgba),
        "coeff": to_numpy(face.coeffs.to_tensor()),
        "face_shape": to_numpy(face.vertices),
        "face_texture": 255 * to_numpy(albedo),
        "face_color": 255 * to_numpy(appearance.colors[0]),
        "lm_68p": to_numpy(landmarks),
        "lm_5p": to_numpy(five),
    }
