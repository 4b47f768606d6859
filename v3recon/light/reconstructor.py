"""Photo to faces by exported networks, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from v3recon.detection.crop_pixels import crop_image
from v3recon.io.images import read_image
from v3recon.light.cascade import run_cascade
from v3recon.light.files import COEFFICIENTS, LANDMARKS, ExportedModel, load_exported


@dataclass(frozen=True)
class LightFace:
    """A face of a photo; arrays are float32, points in the photo's pixels.

    Attributes:
        coeffs: `id exp alb angle sh trans`, [K] each, as in `types.FaceCoeffs`.
        landmarks_68: [68, 2].
        landmarks_106: [106, 2].
        landmarks_134: [134, 2].
        crop_matrix: [2, 3] float64, photo pixels to crop pixels.
        box: [4] left, top, right, bottom, as it was detected.
        score: of the detector, 0…1.
    """

    coeffs: dict[str, np.ndarray]
    landmarks_68: np.ndarray
    landmarks_106: np.ndarray
    landmarks_134: np.ndarray
    crop_matrix: np.ndarray
    box: np.ndarray
    score: float

    @property
    def angle_degrees(self) -> np.ndarray:
        """[3] pitch, yaw, roll."""
        return np.rad2deg(self.coeffs["angle"])


@dataclass(frozen=True)
class LightMesh:
    """A face's dense mesh.

    Attributes:
        vertices: [V, 3] posed, world frame (decimetres, y up, z toward the camera).
        points: [V, 2] projected vertices, photo pixels.
        triangles: [F, 3].
    """

    vertices: np.ndarray
    points: np.ndarray
    triangles: np.ndarray


class OnnxReconstructor:
    """Faces of photos by the files of `v3recon export onnx`.

    Faces are found, cropped and looked at as by `FaceReconstructor`. Left out: the quality, heads
    that lie on their side, small faces of photos beyond 1,024 pixels, and the further looks at
    faces whose first two disagree.
    """

    def __init__(self, model: ExportedModel, max_faces: int | None = None) -> None:
        """Take loaded files; `from_folder` loads them.

        Args:
            model: of `files.load_exported`.
            max_faces: how many of a photo's largest faces are looked at; None = all.
        """
        self.model = model
        self.max_faces = max_faces
        self._about: dict[str, Any] = model.about

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, threads: int | None = None, max_faces: int | None = None
    ) -> OnnxReconstructor:
        """Load exported files.

        Args:
            folder: that `v3recon export onnx` wrote.
            threads: of the processor; default all.
            max_faces: how many of a photo's largest faces are looked at; None = all.

        Raises:
            ValueError: if a file is missing or damaged, or onnxruntime is missing.
        """
        return cls(load_exported(folder, threads), max_faces)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        backend: str = "onnx",
        threads: int | None = None,
        max_faces: int | None = None,
    ) -> OnnxReconstructor:
        """What `v3recon.FaceReconstructor.from_pretrained(source, backend="onnx")` gives.

        It is that name where torch is not installed.

        Args:
            source: folder that `v3recon export onnx` wrote.
            backend: "onnx".
            threads: see `from_folder`.
            max_faces: see `from_folder`.

        Raises:
            ValueError: for another backend, without a folder, or as `from_folder`.
        """
        if backend != "onnx":
            raise ValueError(
                f"backend: {backend!r} needs torch, which is not installed; use 'onnx'"
            )
        if source is None:
            raise ValueError("source: the folder that `v3recon export onnx FOLDER` wrote")
        return cls.from_folder(source, threads=threads, max_faces=max_faces)

    def __call__(self, photo: str | Path | np.ndarray) -> list[LightFace]:
        """Faces of a photo, the largest first.

        Args:
            photo: a file, or [H, W, 3] uint8 RGB.

        Raises:
            ValueError: if it is no photo.
        """
        image = photo if isinstance(photo, np.ndarray) else read_image(photo)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a photo [H, W, 3] uint8, got {image.shape} {image.dtype}")
        boxes, scores = self._detect(image)
        if not len(boxes):
            return []
        matrices = [self._crop_of_detection(box) for box in boxes]
        found = self._look(image, matrices)
        for _ in range(int(self._about["crop_rule"].get("passes", 1)) - 1):
            points = _from_crop(found["landmarks_68"], matrices)
            matrices = [self._crop_of_landmarks(one) for one in points]
            found = self._look(image, matrices)
        landmarks = {name: _from_crop(found[name], matrices) for name in LANDMARKS}
        return [
            LightFace(
                coeffs={name: found[name][number] for name in COEFFICIENTS},
                **{name: landmarks[name][number] for name in LANDMARKS},
                crop_matrix=matrices[number],
                box=box,
                score=float(score),
            )
            for number, (box, score) in enumerate(zip(boxes, scores, strict=True))
        ]

    def crops(self, photo: str | Path | np.ndarray) -> np.ndarray:
        """What the network is given of each face of a photo at last: [N, 3, S, S] RGB in 0…1."""
        image = photo if isinstance(photo, np.ndarray) else read_image(photo)
        matrices = [face.crop_matrix for face in self(image)]
        size = self._about["input_size"]
        return (
            self._crops(image, matrices) if matrices else np.zeros((0, 3, size, size), np.float32)
        )

    def mesh(self, face: LightFace) -> LightMesh:
        """The dense mesh of a face."""
        inputs = {name: face.coeffs[name][None] for name in ("id", "exp", "angle", "trans")}
        found = self.model.decoder(**inputs)
        points = _from_crop(found["points"], [face.crop_matrix])[0]
        return LightMesh(found["vertices"][0], points, self.model.arrays["triangles"])

    def _detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4] in the photo's pixels and scores [N], the largest first."""
        rule = self._about["detector"]
        height, width = image.shape[:2]
        scale = min(1.0, rule["max_side"] / max(height, width))
        small = image
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        boxes, scores, _ = run_cascade(
            small,
            self.model.detector,
            rule["min_face_size"],
            rule["thresholds"],
            rule["pyramid_step"],
        )
        ratio = np.tile([width / small.shape[1], height / small.shape[0]], 2)
        boxes = (boxes.astype(np.float64) + 0.5) * ratio - 0.5
        sure = scores >= rule["min_confidence"]
        boxes, scores = boxes[sure], scores[sure]
        order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1), kind="stable")
        order = order[: self.max_faces]
        return boxes[order], scores[order]

    def _look(self, image: np.ndarray, matrices: list[np.ndarray]) -> dict[str, np.ndarray]:
        """What the network says of crops."""
        return self.model.network(image=self._crops(image, matrices))

    def _crops(self, image: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
        """Input of the network [N, 3, S, S]."""
        size, frame = self._about["input_size"], self._about["camera"]["image_size"]
        ratio = size / frame
        crops = []
        for matrix in matrices:
            to_input = matrix * ratio
            to_input[:, 2] += 0.5 * ratio - 0.5
            crops.append(crop_image(image, to_input, size))
        batch = np.stack(crops).astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
        return np.ascontiguousarray(batch)

    def _crop_of_detection(self, box: np.ndarray) -> np.ndarray:
        rule = self._about["crop_rule"]
        corners = box.reshape(2, 2)
        longer = float((corners[1] - corners[0]).max())
        middle = corners.mean(0) + np.array(rule["box_shift"]) * longer
        return self._square(middle, rule["scale"] * rule["box_scale"] * longer)

    def _crop_of_landmarks(self, landmarks: np.ndarray) -> np.ndarray:
        low, high = landmarks.astype(np.float64).min(0), landmarks.astype(np.float64).max(0)
        side = self._about["crop_rule"]["scale"] * float((high - low).max())
        return self._square((low + high) / 2, side)

    def _square(self, middle: np.ndarray, side: float) -> np.ndarray:
        """[2, 3] photo to crop frame of an upright square."""
        frame = self._about["camera"]["image_size"]
        ratio = frame / max(side, 1e-6)
        shift = (frame - 1) / 2 - ratio * middle
        return np.concatenate([np.eye(2) * ratio, shift[:, None]], 1)


def _from_crop(points: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Crop pixels [N, L, 2] to photo pixels."""
    stacked = np.stack(matrices)
    moved = points.astype(np.float64) - stacked[:, None, :, 2]
    return (moved @ np.linalg.inv(stacked[:, :, :2]).transpose(0, 2, 1)).astype(np.float32)
