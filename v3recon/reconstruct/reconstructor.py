"""Photo to faces: detect, align, regress, decode. Other products are separate calls."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.packed_convolutions import pack_convolutions
from v3recon.decode import decode
from v3recon.detection.crop import (
    CropTransform,
    crop_again,
    crop_of_detection,
    crop_of_photo,
    crop_photo,
    resize_crop,
    widened,
)
from v3recon.detection.detect import DETECTORS, detect_faces
from v3recon.detection.given import crop_of_given, given_detection
from v3recon.face_models.bfm import five_points, load_similarity_landmarks
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.given_faces import GivenFace
from v3recon.light.reconstructor import OnnxReconstructor
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.face_regressor import FaceRegressor
from v3recon.networks.regressor import Regressor, fuse_for_inference
from v3recon.reconstruct.assets import find_assets
from v3recon.reconstruct.faces import Face, Faces, join_faces, make_faces, no_faces
from v3recon.reconstruct.fit_colors import ColorPoints, color_points, fit_colors, sample_colors
from v3recon.reconstruct.inputs import as_images
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.quality import DOUBTFUL, face_quality, mirror_distance
from v3recon.reconstruct.seen import cover_at, near_hair_at, seen_bytes
from v3recon.reconstruct.turned import (
    from_turned_coeffs,
    from_turned_crop,
    from_turned_detection,
    turn_photo,
)
from v3recon.render.rasterize import RASTERIZERS
from v3recon.types import Detection, FaceCoeffs

RESTLESS = 0.04
"""Looks at a face whose landmarks move by more, over its size, disagree (usual: 0.003 to 0.03)."""
SHADOW = 0.1
"""Share of the crop's side around hair whose pixels say nothing of the skin, unless most would."""
SETTLED = 0.03
"""Movement at the last of three looks below which they agree after all."""
WIDER = (1.5, 2.0)
"""From how much wider crops a face is looked at whose looks disagree."""


@dataclass(frozen=True)
class FaceReconstructor:
    """Reconstructs the faces of photos: `reconstructor("photo.jpg") -> Faces`.

    Attributes:
        model: face model, on the device.
        regressor: network for inference, on the device.
        crop_rule: how the network's crops were cut, see `detection.crop.crop_of_detection`; with
            "passes": 2 each face is cropped again from its own first landmarks, and more often
            where these disagree (`reconstruct_found`).
        points_3d: [5, 3] for the five-point rule.
        detector: "mtcnn" or "retinaface"; None = photos are aligned crops already.
        detector_weights: file of weights; only "retinaface" needs one.
        min_confidence: lowest detection score, 0…1; None = the detector's own.
        max_faces: how many of the largest faces of a photo are reconstructed; None = all.
        batch_size: faces that go through the network together.
        rasterizer: what draws parts and textures: "auto", "cpu", "torch" or "nvdiffrast".
        camera: camera of the crop.
        min_quality: faces of a lower `Faces.quality` are left out.
        find_turned: photos without an upright face are searched for heads on their side as well.
    """

    model: LinearFaceModel
    regressor: Regressor | FaceRegressor
    crop_rule: dict[str, Any]
    points_3d: Tensor
    detector: str | None = "mtcnn"
    detector_weights: Path | None = None
    min_confidence: float | None = None
    max_faces: int | None = None
    batch_size: int = 16
    rasterizer: str = "auto"
    camera: Camera = field(default_factory=Camera)
    min_quality: float = 0.0
    find_turned: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for a value that cannot work, with the parameter's name."""
        known = ("auto", *RASTERIZERS)
        if self.detector not in (None, *DETECTORS):
            raise ValueError(f"detector: {_among(DETECTORS)} or None, not {self.detector!r}")
        if self.rasterizer not in known:
            raise ValueError(f"rasterizer: {_among(known)}, not {self.rasterizer!r}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence: a score in 0…1, not {self.min_confidence}")
        if self.max_faces is not None and self.max_faces < 1:
            raise ValueError(f"max_faces: at least 1, or None for all, not {self.max_faces}")
        if not 0 <= self.min_quality <= 1:
            raise ValueError(f"min_quality: a quality in 0…1, not {self.min_quality}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: at least 1, not {self.batch_size}")

    def __reduce__(self) -> tuple[Any, ...]:
        """As bytes: torch's loaders would send each tensor as an open file of its own, and fail."""
        state = {one.name: getattr(self, one.name) for one in fields(self)}
        return _unpickled, (pickle.dumps(state),)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        backend: Literal["onnx"],
        max_faces: int | None = None,
    ) -> OnnxReconstructor: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        face_model: str | Path | None = None,
        weights: str | Path | None = None,
        backbone: str | None = None,
        detector: str | None = "mtcnn",
        device: str | torch.device | None = None,
        min_confidence: float | None = None,
        max_faces: int | None = None,
        batch_size: int = 16,
        rasterizer: str = "auto",
        min_quality: float = 0.0,
        find_turned: bool = True,
        backend: Literal["torch"] = "torch",
    ) -> FaceReconstructor: ...

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        face_model: str | Path | None = None,
        weights: str | Path | None = None,
        backbone: str | None = None,
        detector: str | None = "mtcnn",
        device: str | torch.device | None = None,
        min_confidence: float | None = None,
        max_faces: int | None = None,
        batch_size: int = 16,
        rasterizer: str = "auto",
        min_quality: float = 0.0,
        find_turned: bool = True,
        backend: str = "torch",
    ) -> FaceReconstructor | OnnxReconstructor:
        """Load what a reconstruction needs.

        Args:
            source: folder of official 3DDFA_V3 assets, or a checkpoint of `v3recon train`; None =
                the face model and the weights in the package.
            face_model: "photohead", "bfm" or a file, instead of the folder's.
            weights: checkpoint, instead of the folder's.
            backbone: "resnet50" or "mbnetv3", where the folder has both.
            detector: "mtcnn", "retinaface" or None (photos are aligned crops already).
            device: torch device; default "cuda" if there is one, else "cpu".
            min_confidence: lowest detection score, 0…1; None = the detector's own.
            max_faces: how many of the largest faces of a photo are reconstructed; None = all.
            batch_size: faces that go through the network together.
            rasterizer: what draws parts and textures: "auto", "cpu", "torch" or "nvdiffrast".
            min_quality: faces of a lower `Faces.quality` are left out.
            find_turned: search photos without an upright face for heads on their side as well.
            backend: "onnx" gives a `light.reconstructor.OnnxReconstructor` of the folder `source`
                that `v3recon export onnx` wrote; of the other arguments it knows `max_faces`.

        Raises:
            ValueError: if a file is missing or malformed, or files do not fit together.
        """
        if backend not in ("torch", "onnx"):
            raise ValueError(f"backend: 'torch' or 'onnx', not {backend!r}")
        if backend == "onnx":
            return OnnxReconstructor.from_pretrained(source, max_faces=max_faces)
        assets = find_assets(source, face_model=face_model, weights=weights, backbone=backbone)
        device = resolve_device(device)
        if detector == "retinaface" and assets.retinaface is None:
            raise ValueError("detector: 'retinaface' needs its weights in assets; or use 'mtcnn'")
        model = load_face_model(assets.face_model)
        loaded = load_checkpoint(assets.weights, model)
        if backbone not in (None, loaded.description.backbone):
            found = loaded.description.backbone
            raise ValueError(f"backbone: {assets.weights} is of {found}, not {backbone}")
        if assets.points_3d is not None:
            points_3d = load_similarity_landmarks(assets.points_3d)
        else:
            points_3d = mean_five_points(model)
        regressor = fuse_for_inference(loaded.regressor, in_place=True).to(device)
        if torch.device(device).type == "cpu":
            pack_convolutions(regressor)
        return cls(
            model=model.to(device),
            regressor=regressor,
            crop_rule=loaded.description.crop_rule,
            points_3d=points_3d,
            detector=detector,
            detector_weights=assets.retinaface,
            min_confidence=min_confidence,
            max_faces=max_faces,
            batch_size=batch_size,
            rasterizer=rasterizer,
            min_quality=min_quality,
            find_turned=find_turned,
        )

    @property
    def device(self) -> torch.device:
        """Where the face model and the network are."""
        return self.model.mean_shape.device

    def __call__(self, image: Any, given: Sequence[GivenFace] | None = None) -> Any:
        """Faces of a photo, or of each photo of a list.

        Args:
            image: a path, a PIL image, an array [H, W, 3], a tensor [3, H, W], or a list or batch
                of them; see `reconstruct.inputs.as_images`.
            given: boxes or landmarks of the faces of a single photo, instead of a detector's; see
                `io.given_faces`.

        Returns:
            `Faces` of one photo, the largest first; for a list or a batch a list of `Faces`, one
            for each photo.

        Raises:
            ValueError: with a sentence that begins with "image:", for what is not a photo, or with
                "given:", for faces outside of it.
        """
        photos = as_images(image)
        if given is not None and not photos.single:
            raise ValueError("given: boxes are of a single photo; call once for each")
        found = self.reconstruct_photos(photos.images, None if given is None else [given])
        named = [replace(faces, name=name) for faces, name in zip(found, photos.names, strict=True)]
        return named[0] if photos.single else named

    def reconstruct_photos(
        self,
        images: Sequence[np.ndarray],
        given: Sequence[Sequence[GivenFace] | None] | None = None,
    ) -> list[Faces]:
        """Faces of several photos, batched through the network.

        Args:
            images: photos [H, W, 3] uint8 RGB of any sizes.
            given: boxes or landmarks of each photo's faces; None where the detector finds them.

        Returns:
            For each photo its faces, the largest first, or in the order given. Where no upright
            face is found, or doubtful ones only, heads that lie on their side or hang are looked
            for.
        """
        told = [None] * len(images) if given is None else list(given)
        found = [
            self.find_faces(image) if faces is None else self.given_faces(image, faces)
            for image, faces in zip(images, told, strict=True)
        ]
        owner = [index for index, faces in enumerate(found) for _ in faces]
        detections = [detection for faces in found for detection, _ in faces]
        crops = [crop for faces in found for _, crop in faces]
        photos = [images[index] for index in owner]
        passes = 1 if self.detector is None else int(self.crop_rule.get("passes", 1))
        faces = self.reconstruct_found(photos, crops, detections, passes)
        finished = iter(self.finished(photos, faces))
        grouped = [[next(finished) for _ in one] for one in found]
        if self.detector is not None and self.find_turned:
            for index, image in enumerate(images):
                doubtful = all(face.quality < DOUBTFUL for face in grouped[index])
                if doubtful and told[index] is None:
                    grouped[index] = self._turned_faces(image, passes) or grouped[index]
        return [self._of_photo(group, image) for group, image in zip(grouped, images, strict=True)]

    def _of_photo(self, faces: Sequence[Face], image: np.ndarray) -> Faces:
        """The faces of one photo that are good enough, together."""
        kept = [face for face in faces if not face.quality < self.min_quality]
        if kept:
            return join_faces(kept)
        return no_faces(self.model, self.camera, image, rasterizer=self.rasterizer)

    def _turned_faces(self, image: np.ndarray, passes: int) -> list[Face]:
        """Faces of heads that lie on their side or hang, the largest first; none if doubtful."""
        best: list[Face] = []
        for quarters in (1, 3, 2):
            turned = turn_photo(image, quarters)
            found = self.find_faces(turned, thorough=False)
            photos = [turned] * len(found)
            crops, detections = [crop for _, crop in found], [one for one, _ in found]
            faces = self.reconstruct_found(photos, crops, detections, passes)
            for face in self.finished(photos, faces):
                if face.quality >= DOUBTFUL:
                    best.append(self._told_upright(face, quarters, image))
        best.sort(key=lambda face: -face.quality)
        kept: list[Face] = []
        for face in best:
            if not any(_same_place(face, other) for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: face.crop.scale)[: self.max_faces]

    def _told_upright(self, face: Face, quarters: int, image: np.ndarray) -> Face:
        """A face of a turned photo as a face of the photo."""
        assert face.detection is not None
        size = (image.shape[0], image.shape[1])
        (upright,) = make_faces(
            from_turned_coeffs(face.coeffs, quarters),
            self.model,
            self.camera,
            [from_turned_crop(face.crop, quarters, size, self.camera)],
            [image],
            [from_turned_detection(face.detection, quarters, size)],
            rasterizer=self.rasterizer,
        )
        seen = face.batch.seen
        if seen is not None:
            seen = seen.rot90(-quarters, (2, 3))
        return Face(replace(upright.batch, quality=face.batch.quality, seen=seen))

    def find_faces(
        self, image_np: np.ndarray, *, thorough: bool = True
    ) -> list[tuple[Detection | None, CropTransform]]:
        """Where the faces of a photo are and how each is cropped, the largest first.

        Args:
            image_np: [H, W, 3] uint8 RGB.
            thorough: look for small faces of large photos as well.
        """
        if self.detector is None:
            height, width = image_np.shape[:2]
            return [(None, crop_of_photo(width, height, self.camera))]
        detections = detect_faces(
            image_np,
            self.detector,
            min_confidence=self.min_confidence,
            max_faces=self.max_faces,
            device=str(self.device),
            weights=self.detector_weights,
            thorough=thorough,
        )
        return [
            (face, crop_of_detection(face, self.crop_rule, self.points_3d, self.camera))
            for face in detections
        ]

    def given_faces(
        self, image_np: np.ndarray, given: Sequence[GivenFace]
    ) -> list[tuple[Detection | None, CropTransform]]:
        """What `find_faces` says, of faces that a user gave, in their order.

        A box alone says little to a network with the five-point rule: its crop is made twice, from
        the box and then from the landmarks found in it (3DDFA's two-step initialization).

        Args:
            image_np: [H, W, 3] uint8 RGB.
            given: the faces.

        Raises:
            ValueError: if one lies outside of the photo, or its points fall together.
        """
        if self.detector is None:
            raise ValueError("given: this reconstructor takes photos that are crops already")
        scene = (self.crop_rule, self.points_3d.cpu(), self.camera)
        size = (int(image_np.shape[0]), int(image_np.shape[1]))
        found: list[tuple[Detection | None, CropTransform]] = []
        for number, face in enumerate(given, 1):
            try:
                detection = given_detection(face, size)
                crop = crop_of_given(face, detection, *scene)
                if face.points is None and self.crop_rule.get("name") == "five_points":
                    (first,) = self.reconstruct_crops([image_np], [crop])
                    crop = crop_again(first.landmarks_68.cpu(), *scene)
                found.append((detection, crop))
            except ValueError as error:
                raise ValueError(f"given: face {number}: {error}") from None
        return found

    def reconstruct_found(
        self,
        images: Sequence[np.ndarray],
        crops: Sequence[CropTransform],
        detections: Sequence[Detection | None],
        passes: int,
    ) -> list[Face]:
        """Faces at places that a detector has found, which may be off.

        Each face is looked at `passes` times, cropped by the last look's landmarks. Where looks
        disagree by more than `RESTLESS`, the box was probably beside the face (an ear, a cheek):
        the face is looked at once more, then from wider crops, until two looks agree.

        Args:
            images: photos [H, W, 3] uint8 RGB; the same photo may stand for several faces.
            crops: how each face is cropped first.
            detections: kept in the results.
            passes: looks at each face; with 1 nothing can disagree.
        """
        faces, moves = self._look(images, crops, detections, passes)
        for number in [number for number, move in enumerate(moves) if move > RESTLESS]:
            tries = []
            for factor in (1.0, *WIDER):
                start = widened(crops[number], factor, self.camera)
                one = slice(number, number + 1)
                (face,), (move,) = self._look(images[one], [start], detections[one], passes + 1)
                tries.append((move, face))
                if move <= SETTLED:
                    break
            faces[number] = min(tries, key=lambda found: found[0])[1]
        return faces

    def finished(self, images: Sequence[np.ndarray], faces: Sequence[Face]) -> list[Face]:
        """The same faces with their quality, what is seen of them, and their colors.

        A look at the mirror image of each crop tells the quality and, where the network has a part
        head, what is seen. Such a network's albedo and light are fitted to the crop's pixels.
        """
        finished: list[Face] = []
        for start in range(0, len(faces), self.batch_size):
            part = faces[start : start + self.batch_size]
            photos = images[start : start + self.batch_size]
            batch = self._pixels(photos, [face.crop for face in part])
            apart, logits = self._in_mirror(batch, part)
            for number, (face, distance) in enumerate(zip(part, apart.tolist(), strict=True)):
                rating = face_quality(distance, face.landmarks_68, face.detection)
                known = replace(face.batch, quality=torch.tensor([rating]))
                if logits is not None:
                    one = slice(number, number + 1)
                    seen = seen_bytes(logits[one], mirrored=True).clone()
                    known = self._colored(replace(known, seen=seen), batch[one])
                finished.append(Face(known))
        return finished

    @property
    def fits_colors(self) -> bool:
        """Whether `finished` fits albedo and light: the network has a part head."""
        return isinstance(self.regressor, FaceRegressor)

    def mirror_distances(self, images: Sequence[np.ndarray], faces: Sequence[Face]) -> Tensor:
        """[N] how far the landmarks of faces are from those of their mirror images.

        Args:
            images: photos [H, W, 3] uint8 RGB, one for each face.
            faces: of these photos; as many as go through the network together.
        """
        return self._in_mirror(self._pixels(images, [face.crop for face in faces]), faces)[0]

    def _in_mirror(self, batch: Tensor, faces: Sequence[Face]) -> tuple[Tensor, Tensor | None]:
        """Distances [N] of landmarks from those of mirrored crops, and what these show."""
        with full_precision(), torch.inference_mode():
            coeffs, logits = self._with_seen(batch.flip(3))
            mirrored = decode(coeffs, self.model, self.camera)
        found = torch.cat([face.decoded.points_2d for face in faces])
        ids = self.model.landmarks_68
        return mirror_distance(found[:, ids], mirrored.points_2d[:, ids], self.camera), logits

    def _with_seen(self, batch: Tensor) -> tuple[FaceCoeffs, Tensor | None]:
        """Coefficients of crops, and the logits of what is seen where the network tells it."""
        if isinstance(self.regressor, FaceRegressor):
            return self.regressor.coeffs_and_seen(batch)
        return self.regressor(batch), None

    def _colored(self, faces: Faces, pixels: Tensor) -> Faces:
        """The same faces with albedo and light that explain the pixels of their crops."""
        assert faces.seen is not None
        points = self._color_points
        with full_precision(), torch.inference_mode():
            scene = (faces.decoded, self.model, points, self.camera)
            colors, normals, weights = sample_colors(pixels, *scene)
            places = faces.decoded.points_2d[:, points.index]
            weights = weights * (1 - cover_at(faces.seen, places, self.camera))
            lit = weights * (1 - near_hair_at(faces.seen, places, self.camera, SHADOW))
            enough = lit.sum(1, keepdim=True) > weights.sum(1, keepdim=True) / 2
            alb, sh = fit_colors(colors, normals, torch.where(enough, lit, weights), points)
        coeffs = replace(faces.coeffs, alb=alb.clone(), sh=sh.clone())
        return replace(faces, coeffs=coeffs)

    @cached_property
    def _color_points(self) -> ColorPoints:
        return color_points(self.model)

    def _pixels(self, images: Sequence[np.ndarray], crops: Sequence[CropTransform]) -> Tensor:
        """Input of the network [B, 3, S, S] in 0…1: one photo and one crop for each."""
        pixels = torch.from_numpy(np.stack(list(map(self._crop, images, crops))))
        return pixels.to(self.device).permute(0, 3, 1, 2).float() / 255

    def _look(
        self,
        images: Sequence[np.ndarray],
        crops: Sequence[CropTransform],
        detections: Sequence[Detection | None],
        passes: int,
    ) -> tuple[list[Face], list[float]]:
        """Faces looked at so often, and how far their landmarks moved at the last look."""
        faces = self.reconstruct_crops(images, crops, detections)
        moves = [0.0] * len(faces)
        for _ in range(passes - 1):
            crops = [
                crop_again(face.landmarks_68, self.crop_rule, self.points_3d, self.camera)
                for face in faces
            ]
            before, faces = faces, self.reconstruct_crops(images, crops, detections)
            moves = list(map(_movement, before, faces))
        return faces, moves

    def reconstruct_crops(
        self,
        images: Sequence[np.ndarray],
        crops: Sequence[CropTransform],
        detections: Sequence[Detection | None] | None = None,
    ) -> list[Face]:
        """Faces at known places: one photo and one crop for each.

        Args:
            images: photos [H, W, 3] uint8 RGB; the same photo may stand for several faces.
            crops: how each face is cropped.
            detections: kept in the results.
        """
        faces: list[Face] = []
        for start in range(0, len(crops), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = self._pixels(images[part], crops[part])
            with full_precision(), torch.inference_mode():
                coeffs = self.regressor(batch)
            photos = images[part]
            found = detections[part] if detections is not None else [None] * len(photos)
            scene = (self.model, self.camera, crops[part], photos, found)
            faces += make_faces(coeffs, *scene, rasterizer=self.rasterizer)
        return faces

    def _crop(self, image_np: np.ndarray, crop: CropTransform) -> np.ndarray:
        size = self.regressor.input_size
        if self.detector is None:
            return resize_crop(image_np, size)
        return crop_photo(image_np, crop, size, self.camera)


def _movement(before: Face, after: Face) -> float:
    """Mean distance of the 68 landmarks of two looks over the size of the face in the latter."""
    points = after.landmarks_68
    size = (points.amax(0) - points.amin(0)).prod().sqrt()
    return float((points - before.landmarks_68).norm(dim=1).mean() / size)


def _unpickled(state: bytes) -> FaceReconstructor:
    """A reconstructor from its attributes; see `FaceReconstructor.__reduce__`."""
    return FaceReconstructor(**pickle.loads(state))


def _same_place(one: Face, other: Face) -> bool:
    """Whether two faces are of one head: the middle of one is inside of the other's landmarks."""
    middle = one.landmarks_68.mean(0)
    points = other.landmarks_68
    return bool(((middle > points.amin(0)) & (middle < points.amax(0))).all())


def mean_five_points(model: LinearFaceModel) -> Tensor:
    """Five 3D points [5, 3] of the mean face, for the five-point crop."""
    return five_points(model.mean_vertices()[model.landmarks_68])


def resolve_device(device: str | torch.device | None) -> str:
    """The torch device to use; default "cuda" where there is one, else "cpu".

    Raises:
        ValueError: if the name is not a device, or there is no such device here.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device: there is no {device} here; use cpu") from None
    if kind == "meta":
        raise ValueError("device: meta computes nothing; use cpu")
    return str(device)


def _among(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
