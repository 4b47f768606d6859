"""What the shipped weights make of hard pictures: the card's figure.

    v3recon synthesize poses --photos examples --out turned --yaw 60 80 --per-photo 2
    python benchmarks/weights_figures.py --turned turned --out docs/pictures

Rows: picture, shape over it, parts over it. Faces that the detector misses stay without overlay.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from v3recon.face_models.parts import color_table
from v3recon.geometry.camera import to_clip
from v3recon.io.images import read_image
from v3recon.io.photo_files import list_photos
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.segment import segment
from v3recon.reconstruct.texture import make_appearance
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_shape

SIDE = 224


def hard_pictures(photo: np.ndarray) -> list[np.ndarray]:
    """The photo with dark glasses, a covered mouth, in blue light, tiny, and noisy in the dark.

    Args:
        photo: [S, S, 3] uint8 RGB, the face in its middle.
    """
    side = photo.shape[0]
    glasses, covered = photo.copy(), photo.copy()
    for x in (0.405, 0.575):
        place = (round(x * side), round(0.44 * side))
        cv2.ellipse(glasses, place, (side // 13, side // 16), 0, 0, 360, (15, 15, 18), -1)
    cv2.line(glasses, (side * 2 // 5, side * 43 // 100), (side * 3 // 5, side * 43 // 100), 15, 4)
    place = (side // 2, round(0.61 * side))
    cv2.ellipse(covered, place, (side // 7, side // 11), 12, 0, 360, (196, 150, 126), -1)
    covered = cv2.GaussianBlur(covered, (3, 3), 0)
    blue = np.clip(photo * np.array([0.45, 0.6, 1.15]), 0, 255).astype(np.uint8)
    tiny = cv2.resize(photo, (48, 48), interpolation=cv2.INTER_AREA)
    tiny = cv2.resize(tiny, (side, side), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 9, photo.shape)
    dark = np.clip(0.18 * photo + noise, 0, 255).astype(np.uint8)
    return [glasses, covered, blue, tiny, dark]


def column(picture: np.ndarray, face: Face | None) -> np.ndarray:
    """Picture, shape and parts [3 S, S, 3]; the picture thrice where no face was found."""
    if face is None:
        return np.concatenate([picture] * 3)
    size = picture.shape[:2]
    labels = segment(face).labels
    colors = color_table().numpy()[labels]
    parts = np.where(labels[..., None] > 0, picture // 2 + colors // 2, picture)
    appearance = make_appearance(face.batch)
    from_crop = face.batch.crop.inverse_matrix.to(face.points_photo)
    clip = to_clip(face.decoded.vertices, face.camera, size, from_crop)
    fragments = rasterize(clip, face.model.faces, size)
    shape, mask = render_shape(appearance.normals, fragments, face.model.faces)
    drawn = (255 * shape[0].permute(1, 2, 0).clamp(0, 1)).byte().numpy()
    shown = np.where(mask[0, 0].numpy()[..., None] > 0, drawn, picture)
    return np.concatenate([picture, shown, parts.astype(np.uint8)])


def sheet(pictures: list[np.ndarray], reconstructor: FaceReconstructor) -> np.ndarray:
    """One column a picture, all SIDE pixels wide."""
    columns = []
    for picture in pictures:
        picture = cv2.resize(picture, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            faces = reconstructor(picture)
        whole = column(picture, faces[0] if faces else None)
        columns.append(cv2.resize(whole, (SIDE, 3 * SIDE), interpolation=cv2.INTER_AREA))
    return np.concatenate(columns, 1)


def main() -> None:
    """Write weights_failures.jpg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turned", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    reconstructor = FaceReconstructor.from_pretrained(weights=arguments.weights)
    reconstructor = replace(reconstructor, max_faces=1)
    photo = read_image(Path(__file__).parent.parent / "examples" / "astronaut.jpg")
    face = reconstructor(photo)[0].points_photo.numpy()
    low, high = face.min(0), face.max(0)
    half = int(0.85 * (high - low).max())
    x, y = ((low + high) / 2).astype(int)
    square = photo[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    turned = list_photos([arguments.turned / "images"])[:2]
    pictures = [*hard_pictures(square), *(read_image(path) for path in turned)]
    drawn = cv2.cvtColor(sheet(pictures, reconstructor), cv2.COLOR_RGB2BGR)
    path = arguments.out / "weights_failures.jpg"
    cv2.imwrite(str(path), drawn, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
