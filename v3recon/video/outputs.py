"""What is written of people in a video: values, drawn frames, animated heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from v3recon.detection.crop import CropTransform
from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.io.atomic import replace_on_success
from v3recon.io.glb import GlbAnimation
from v3recon.reconstruct.draw import draw_landmarks
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.reconstruct.glb import METRES, write_face_glb
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.video.take import Take

_COLORS = ((40, 220, 70), (255, 150, 40), (70, 150, 255), (240, 80, 200), (250, 230, 60))


def write_take_arrays(path: str | Path, take: Take, model: LinearFaceModel) -> None:
    """Write a person's values over T frames as arrays, whole or not at all.

    `frames times shots quality` are [T]; `exp angle sh trans crop_matrix landmarks_68` [T, …]; `id`
    and `alb` [K] are the person's; `exp_names` names the expression coefficients that have names.
    """
    coeffs = take.coeffs
    arrays: dict[str, Any] = {
        "frames": take.frames,
        "times": take.times,
        "shots": take.shots,
        "quality": take.quality,
        "id": coeffs.id[0].numpy(),
        "alb": coeffs.alb[0].numpy(),
        "exp": coeffs.exp.numpy(),
        "angle": coeffs.angle.numpy(),
        "sh": coeffs.sh.numpy(),
        "trans": coeffs.trans.numpy(),
        "crop_matrix": take.crop_matrix.numpy(),
        "landmarks_68": take.landmarks_68,
        "exp_names": np.array(model.exp_names, "U"),
        "face_model": np.array(f"{model.name} {model.content_hash}"),
    }
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def draw_people(image: np.ndarray, people: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """A copy of a frame with the landmarks [68, 2] and the number of each person."""
    drawn = image
    for person, points in people:
        color = _COLORS[(person - 1) % len(_COLORS)]
        low = np.clip(np.floor(points.min(0)).astype(int) - 8, 0, None)
        high = np.ceil(points.max(0)).astype(int) + 9
        region = np.s_[low[1] : high[1], low[0] : high[0]]
        if not drawn[region].size:
            continue
        drawn = drawn.copy() if drawn is image else drawn
        size = float(np.ptp(points, axis=0).max())
        part = np.ascontiguousarray(drawn[region])
        drawn[region] = draw_landmarks(part, points - low, color, max(1.0, size / 90))
        place = (int(low[0]), max(int(low[1]) - 4, 12))
        cv2.putText(drawn, str(person), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 2, cv2.LINE_AA)
    return drawn


def best_face(take: Take, reconstructor: FaceReconstructor, image: np.ndarray) -> Face:
    """The face of row `take.best` with its colors and what is seen of it.

    Args:
        take: of the reconstructor's face model.
        reconstructor: whose faces they are.
        image: [H, W, 3] uint8 RGB, the frame of that row.
    """
    row = slice(take.best, take.best + 1)
    crop = CropTransform(take.crop_matrix[take.best])
    scene = (reconstructor.model, reconstructor.camera, [crop], [image], [None])
    (face,) = reconstructor.finished([image], make_faces(take.coeffs[row], *scene))
    return face


def write_take_glb(path: str | Path, take: Take, face: Face, texture_size: int = 1024) -> None:
    """Write an animated head: ARKit weights, rotation and place of every frame.

    The place is relative to the first frame, in metres, for the camera of the crops; only its
    ratios are known without the video's focal length.

    Args:
        path: the .glb file.
        take: of a face model whose first 52 expression coefficients are ARKit's.
        face: that of `best_face`, for the texture.
        texture_size: texels.
    """
    animation = GlbAnimation(
        times=take.times - take.times[0],
        weights=take.coeffs.exp[:, : len(ARKIT_NAMES)].numpy(),
        rotations=quaternions_of(take),
        translations=places_of(take, face.camera),
    )
    name = Path(path).stem
    write_face_glb(path, face, texture_size=texture_size, animation=animation, name=name)


def quaternions_of(take: Take) -> np.ndarray:
    """[T, 4] x, y, z, w of the heads' rotations, neighbours on the same side of the sphere."""
    matrices = euler_to_matrix(take.coeffs.angle.double()).numpy().transpose(0, 2, 1)  # columns
    quaternions = Rotation.from_matrix(matrices).as_quat()
    for row in range(1, len(quaternions)):
        if quaternions[row] @ quaternions[row - 1] < 0:
            quaternions[row] *= -1
    return quaternions


def places_of(take: Take, camera: Camera) -> np.ndarray:
    """[T, 3] metres from the first frame: x right, y up, z toward the camera.

    A head of `k` photo pixels a decimetre is focal_1 / k away from a camera whose focal length is
    that of the first frame's crop in photo pixels.
    """
    matrix = take.crop_matrix.numpy()
    scale = np.sqrt(np.abs(np.linalg.det(matrix[:, :, :2])))  # crop pixels a photo pixel
    trans = take.coeffs.trans.double().numpy()
    depth = camera.distance - trans[:, 2]
    column = camera.focal * trans[:, 0] / depth + camera.center
    line = camera.image_size - 1 - camera.center - camera.focal * trans[:, 1] / depth
    crop = np.stack([column, line], 1) - matrix[:, :, 2]
    photo = np.linalg.solve(matrix[:, :, :2], crop[..., None])[..., 0]
    focal = camera.focal / scale[0]  # photo pixels
    distance = depth * focal * scale / camera.focal  # decimetres: focal / (pixels a decimetre)
    moved = (photo - photo[0]) * (distance / focal)[:, None]
    place = np.stack([moved[:, 0], -moved[:, 1], distance[0] - distance], 1)
    return place * METRES
