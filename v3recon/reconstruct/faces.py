"""What a reconstruction says about the faces of a photo: `Faces`, and `Face` for one of them.

Points and vertices are torch tensors on the reconstructor's device; pictures (part labels,
textures) are numpy arrays [H, W, …] uint8, as OpenCV, Pillow and matplotlib take them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from v3recon.decode import decode
from v3recon.detection.crop import CropTransform
from v3recon.face_models.landmarks import (
    CONTOUR_68,
    landmark_points,
    march_contour,
    marched_landmarks_106,
)
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.seen import point_visibility, seen_in_photo, stacked_seen
from v3recon.types import Decoded, Detection, FaceCoeffs

if TYPE_CHECKING:
    from v3recon.reconstruct.segment import Parts
    from v3recon.reconstruct.values import OutputChoice
    from v3recon.uv.texture_extraction import ExtractedTexture

LANDMARK_SETS = {
    "ldm68": "landmarks_68",
    "ldm106": "landmarks_106",
    "ldm106_2d": "landmarks_106_2d",
    "ldm134": "landmarks_134",
}
"""Names in the files and attributes of `Faces`."""


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """The faces of one photo, N of them, the largest first; may be none.

    `len`, an index and a loop give single faces (`Face`); a slice gives `Faces`. A pickle holds
    neither the photo nor a face model that can be loaded again: it takes a few kilobytes a face.

    Attributes:
        model: the face model that the coefficients belong to.
        camera: camera of the crop.
        coeffs: coefficients of N faces.
        decoded: geometry of N faces, world frame and crop frame.
        crop: photo pixels to crop pixels and back, matrix [N, 2, 3].
        image_size: (H, W) of the photo.
        detections: where each face was found; None for photos that are crops already.
        quality: [N] 0…1, how probably a face is one and found right (`quality.face_quality`);
            below `quality.DOUBTFUL` it is more probably wrong. NaN where it was not asked for.
        seen: [N, 12, h, w] uint8 over the crops, how probably each place shows each of
            `networks.encoder.SEEN_NAMES`, 255 = certain; None where the network does not tell.
        image: [H, W, 3] uint8 RGB, the photo; None after unpickling.
        rasterizer: what draws parts and textures, see `render.rasterize.rasterize`.
        name: the photo's name without suffix; "photo" where it has none.
    """

    model: LinearFaceModel
    camera: Camera
    coeffs: FaceCoeffs
    decoded: Decoded
    crop: CropTransform
    image_size: tuple[int, int]
    detections: tuple[Detection | None, ...]
    quality: Tensor
    seen: Tensor | None = None
    image: np.ndarray | None = None
    rasterizer: str = "auto"
    name: str = "photo"

    @property
    def vertices(self) -> Tensor:
        """[N, V, 3] posed vertices, world frame (decimetres, y up, z toward the camera)."""
        return self.decoded.vertices

    @property
    def triangles(self) -> Tensor:
        """[F, 3] int64 vertex ids of the mesh's triangles, the same for all faces."""
        return self.model.faces

    @cached_property
    def points_photo(self) -> Tensor:
        """[N, V, 2] projected vertices, photo pixels (x right, y down, first centre (0, 0))."""
        return self.crop.from_crop(self.decoded.points_2d)

    @property
    def landmarks_68(self) -> Tensor:
        """[N, 68, 2] iBUG's 68 points, photo pixels."""
        return self._landmarks(self.model.landmarks_68)

    @cached_property
    def landmarks_68_2d(self) -> Tensor:
        """[N, 68, 2] photo pixels, the jaw where the outline is seen, as people mark it."""
        return torch.cat([self.landmarks_106_2d[:, CONTOUR_68], self.landmarks_68[:, 17:]], 1)

    @property
    def landmarks_106(self) -> Tensor:
        """[N, 106, 2] photo pixels, fixed vertices."""
        return self._landmarks(self.model.landmarks_106)

    @cached_property
    def landmarks_106_2d(self) -> Tensor:
        """[N, 106, 2] photo pixels, the contour where the outline is seen (landmark marching)."""
        decoded, trans = self.decoded, self.coeffs.trans
        contour = march_contour(
            decoded.model_vertices, decoded.rotation, trans, self.model, self.camera
        )
        return self._landmarks(marched_landmarks_106(contour, self.model))

    @property
    def landmarks_134(self) -> Tensor:
        """[N, 134, 2] photo pixels."""
        return self._landmarks(self.model.landmarks_134)

    @cached_property
    def visibility_68(self) -> Tensor:
        """[N, 68] 0…1: the point faces the camera, and no hair, glasses or hand is before it."""
        return point_visibility(
            self.decoded, self.model, self.camera, self.seen, self.model.landmarks_68
        )

    def seg_seen(self) -> np.ndarray:
        """[N, H, W] uint8, what each pixel of the photo shows: numbers of `SEEN_NAMES`.

        Raises:
            ValueError: if the network has no part head, as official ones.
        """
        if self.seen is None:
            raise ValueError("seg_seen: the network of these faces does not tell what is seen")
        return seen_in_photo(self.seen, self.crop.inverse_matrix, self.camera, self.image_size)

    @property
    def angle_degrees(self) -> Tensor:
        """[N, 3] pitch, yaw, roll; see `geometry.rotation.euler_to_matrix`."""
        return torch.rad2deg(self.coeffs.angle)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.coeffs.id.device

    def parts(self) -> Parts:
        """Masks of the eight facial parts in the photo; see `v3recon.segment`."""
        from v3recon.reconstruct.segment import segment

        return segment(self)

    def texture(self, size: int = 1024, *, image: np.ndarray | None = None) -> ExtractedTexture:
        """Textures unwrapped from the photo; see `v3recon.extract_texture`."""
        from v3recon.reconstruct.texture import extract_texture

        return extract_texture(self, image, size)

    def save(
        self,
        folder: str | Path,
        name: str | None = None,
        *,
        choice: OutputChoice | None = None,
        image: np.ndarray | None = None,
    ) -> list[Path]:
        """Write every face's files into a folder; see `reconstruct.save.save_faces`."""
        from v3recon.reconstruct.save import save_faces

        return save_faces(self, folder, name, choice=choice, image=image)

    def to(self, device: torch.device | str) -> Faces:
        """The same faces on another device; these stay where they are."""
        device = torch.device(device)
        if device == self.device:
            return self
        decoded = self.decoded
        return replace(
            self,
            model=_model_on(self.model, device),
            coeffs=self.coeffs.to(device),
            decoded=Decoded(*(getattr(decoded, one.name).to(device) for one in fields(Decoded))),
        )

    def photo(self, image: np.ndarray | None = None) -> np.ndarray:
        """The photo [H, W, 3] uint8 RGB that the faces were found in.

        Args:
            image: the photo, where the faces do not hold it.

        Raises:
            ValueError: if it is missing, or has another size.
        """
        image = self.image if image is None else image
        if image is None:
            raise ValueError("image: give the photo; these faces came without it, from a pickle")
        if image.shape[:2] != self.image_size:
            raise ValueError(
                f"image: the faces are of a photo {self.image_size}, not {image.shape[:2]}"
            )
        return image

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"Faces({len(self)} in {self.name!r}, {width} x {height}, {self.model.name})"

    def __len__(self) -> int:
        return len(self.coeffs)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            decoded = self.decoded
            part = Decoded(*(getattr(decoded, one.name)[index] for one in fields(Decoded)))
            return replace(
                self,
                coeffs=self.coeffs[index],
                decoded=part,
                crop=CropTransform(self.crop.matrix[index]),
                detections=self.detections[index],
                quality=self.quality[index],
                seen=None if self.seen is None else self.seen[index],
            )
        number = range(len(self))[index]  # IndexError beyond the last one ends a loop
        return Face(self[number : number + 1])

    def __iter__(self) -> Iterator[Face]:
        return (Face(self[number : number + 1]) for number in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Faces:
        """A copy with tensors of its own; the face model, which nothing changes, is shared."""
        copied = {
            one.name: copy.deepcopy(getattr(self, one.name), memo)
            for one in fields(Faces)
            if one.name != "model"
        }
        return Faces(model=self.model, **copied)

    def __reduce__(self) -> tuple[Any, ...]:
        dropped = ("model", "decoded", "image")
        state = {
            one.name: getattr(self, one.name) for one in fields(Faces) if one.name not in dropped
        }
        state["coeffs"] = self.coeffs.detach().to("cpu").to_tensor().clone()
        source = self.model.source
        return _restore, (self.model if source is None else source, self.model.content_hash, state)

    def _landmarks(self, index: Tensor) -> Tensor:
        """[N, L, 2] photo pixels of vertex ids [L] or [N, L]."""
        return self.crop.from_crop(landmark_points(self.decoded.points_2d, index))


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """One face of a photo: what `Faces` holds, without the first dimension.

    `coeffs` and `decoded` keep it (B = 1), as the functions on batches take them.

    Attributes:
        batch: the face as `Faces` of length one.
    """

    batch: Faces

    def __repr__(self) -> str:
        angles = ", ".join(f"{value:.0f}" for value in self.angle_degrees.tolist())
        return f"Face(of {self.batch.name!r}, pitch, yaw, roll {angles} degrees)"

    @property
    def model(self) -> LinearFaceModel:
        """The face model that the coefficients belong to."""
        return self.batch.model

    @property
    def camera(self) -> Camera:
        """Camera of the crop."""
        return self.batch.camera

    @property
    def coeffs(self) -> FaceCoeffs:
        """Coefficients, B = 1."""
        return self.batch.coeffs

    @property
    def decoded(self) -> Decoded:
        """Geometry in world and crop frame, B = 1."""
        return self.batch.decoded

    @property
    def crop(self) -> CropTransform:
        """Photo pixels to crop pixels and back, matrix [2, 3]."""
        return CropTransform(self.batch.crop.matrix[0])

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.batch.image_size

    @property
    def image(self) -> np.ndarray | None:
        """[H, W, 3] uint8 RGB, the photo; None after unpickling."""
        return self.batch.image

    @property
    def detection(self) -> Detection | None:
        """Where the face was found; None for photos that are crops already."""
        return self.batch.detections[0]

    @property
    def quality(self) -> float:
        """0…1, how probably the face is one and found right; NaN where it was not asked for."""
        return float(self.batch.quality[0])

    @property
    def vertices(self) -> Tensor:
        """[V, 3] posed vertices, world frame (decimetres, y up, z toward the camera)."""
        return self.batch.vertices[0]

    @property
    def triangles(self) -> Tensor:
        """[F, 3] int64 vertex ids of the mesh's triangles."""
        return self.batch.triangles

    @property
    def points_photo(self) -> Tensor:
        """[V, 2] projected vertices, photo pixels."""
        return self.batch.points_photo[0]

    @property
    def landmarks_68(self) -> Tensor:
        """[68, 2] iBUG's 68 points, photo pixels."""
        return self.batch.landmarks_68[0]

    @property
    def landmarks_68_2d(self) -> Tensor:
        """[68, 2] photo pixels, the jaw where the outline is seen, as people mark it."""
        return self.batch.landmarks_68_2d[0]

    @property
    def landmarks_106(self) -> Tensor:
        """[106, 2] photo pixels, fixed vertices."""
        return self.batch.landmarks_106[0]

    @property
    def landmarks_106_2d(self) -> Tensor:
        """[106, 2] photo pixels, the contour where the outline is seen."""
        return self.batch.landmarks_106_2d[0]

    @property
    def landmarks_134(self) -> Tensor:
        """[134, 2] photo pixels."""
        return self.batch.landmarks_134[0]

    @property
    def seen(self) -> Tensor | None:
        """[12, h, w] uint8 over the crop, see `Faces.seen`."""
        return None if self.batch.seen is None else self.batch.seen[0]

    @property
    def visibility_68(self) -> Tensor:
        """[68] 0…1: the point faces the camera, and no hair, glasses or hand is before it."""
        return self.batch.visibility_68[0]

    def seg_seen(self) -> np.ndarray:
        """[H, W] uint8, what each pixel of the photo shows; see `Faces.seg_seen`."""
        return self.batch.seg_seen()[0]

    @property
    def angle_degrees(self) -> Tensor:
        """[3] pitch, yaw, roll."""
        return self.batch.angle_degrees[0]

    def parts(self) -> Parts:
        """Masks of the eight facial parts in the photo; see `v3recon.segment`."""
        return self.batch.parts()[0]

    def texture(self, size: int = 1024, *, image: np.ndarray | None = None) -> ExtractedTexture:
        """Texture unwrapped from the photo, [S, S, …]; see `v3recon.extract_texture`."""
        return self.batch.texture(size, image=image)[0]

    def save(
        self,
        folder: str | Path,
        name: str | None = None,
        *,
        choice: OutputChoice | None = None,
        image: np.ndarray | None = None,
    ) -> list[Path]:
        """Write the face's files into a folder; see `reconstruct.save.save_faces`."""
        return self.batch.save(folder, name, choice=choice, image=image)

    def to(self, device: torch.device | str) -> Face:
        """The same face on another device."""
        return Face(self.batch.to(device))


def make_faces(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera,
    crops: Sequence[CropTransform],
    images: Sequence[np.ndarray],
    detections: Sequence[Detection | None],
    *,
    rasterizer: str = "auto",
) -> list[Face]:
    """Decode a batch of coefficients of faces of any photos.

    Args:
        coeffs: of B faces.
        model: their face model.
        camera: camera of the crops.
        crops: how each face was cropped.
        images: each face's photo, [H, W, 3] uint8 RGB.
        detections: where each face was found.
        rasterizer: kept in the results.
    """
    with full_precision():
        coeffs = FaceCoeffs.from_tensor(coeffs.to_tensor().clone(), coeffs.sizes)
        decoded = decode(coeffs, model, camera)
    geometry = [getattr(decoded, one.name) for one in fields(Decoded)]
    made = []
    for number, (crop, image, found) in enumerate(zip(crops, images, detections, strict=True)):
        one = slice(number, number + 1)
        batch = Faces(
            model=model,
            camera=camera,
            coeffs=coeffs[one],
            decoded=Decoded(*(values[one] for values in geometry)),
            crop=CropTransform(crop.matrix[None]),
            image_size=(int(image.shape[0]), int(image.shape[1])),
            detections=(found,),
            quality=torch.full((1,), math.nan),
            image=image,
            rasterizer=rasterizer,
        )
        made.append(Face(batch))
    return made


def packed_coeffs(faces: Sequence[Face]) -> FaceCoeffs:
    """Coefficients of faces of any photos together, a copy.

    Raises:
        ValueError: if the faces are of several face models.
    """
    model = faces[0].model
    if any(face.model.content_hash != model.content_hash for face in faces):
        raise ValueError("faces: they are of several face models")
    packed = torch.cat([face.coeffs.to_tensor() for face in faces])
    return FaceCoeffs.from_tensor(packed, model.sizes)


def with_coeffs(faces: Sequence[Face], coeffs: FaceCoeffs) -> list[Face]:
    """Faces of any photos with other coefficients; all else is kept.

    Args:
        faces: N faces of one face model, with their photos.
        coeffs: of N faces.

    Raises:
        ValueError: if a photo is missing.
    """
    made = make_faces(
        coeffs, faces[0].model, faces[0].camera, [face.crop for face in faces],
        [face.batch.photo() for face in faces], [face.detection for face in faces],
    )  # fmt: skip
    kept = ("quality", "seen", "name", "rasterizer")
    return [
        Face(replace(new.batch, **{name: getattr(old.batch, name) for name in kept}))
        for old, new in zip(faces, made, strict=True)
    ]


def join_faces(faces: Sequence[Face]) -> Faces:
    """The faces of one photo together.

    Args:
        faces: at least one, all of the same photo.
    """
    first = faces[0].batch
    if len(faces) == 1:
        return first
    together = [face.decoded for face in faces]
    return replace(
        first,
        coeffs=FaceCoeffs.from_tensor(
            torch.cat([face.coeffs.to_tensor() for face in faces]), first.coeffs.sizes
        ),
        decoded=Decoded(
            *(torch.cat([getattr(one, item.name) for one in together]) for item in fields(Decoded))
        ),
        crop=CropTransform(torch.cat([face.batch.crop.matrix for face in faces])),
        detections=tuple(face.detection for face in faces),
        quality=torch.cat([face.batch.quality for face in faces]),
        seen=stacked_seen([face.batch.seen for face in faces]),
    )


def no_faces(
    model: LinearFaceModel, camera: Camera, image: np.ndarray, *, rasterizer: str = "auto"
) -> Faces:
    """The faces of a photo in which none was found."""
    coeffs = FaceCoeffs.zeros(0, model.sizes, model.mean_shape.device)
    geometry = {"model_vertices": 3, "vertices": 3, "points_2d": 2}
    empty = {
        key: model.mean_shape.new_zeros(0, model.vertex_count, size)
        for key, size in geometry.items()
    }
    return Faces(
        model=model,
        camera=camera,
        coeffs=coeffs,
        decoded=Decoded(rotation=model.mean_shape.new_zeros(0, 3, 3), **empty),
        crop=CropTransform(torch.zeros(0, 2, 3, dtype=torch.float64)),
        image_size=(int(image.shape[0]), int(image.shape[1])),
        detections=(),
        quality=torch.zeros(0),
        image=image,
        rasterizer=rasterizer,
    )


def _restore(source: Any, content_hash: str, state: dict[str, Any]) -> Faces:
    """The faces of a pickle, on the CPU."""
    model = source if isinstance(source, LinearFaceModel) else _loaded_again(*source)
    if model.content_hash != content_hash:
        raise ValueError(f"face model {model.source}: not the one that the pickled faces are of")
    coeffs = FaceCoeffs.from_tensor(state.pop("coeffs"), model.sizes)
    with full_precision():
        decoded = decode(coeffs, model, state["camera"])
    return Faces(model=model, coeffs=coeffs, decoded=decoded, **state)


@lru_cache(maxsize=4)
def _loaded_again(name: str, path: str | None) -> LinearFaceModel:
    return load_face_model(name, path)


@lru_cache(maxsize=4)
def _model_on(model: LinearFaceModel, device: torch.device) -> LinearFaceModel:
    """A copy of a face model on another device."""
    return copy.deepcopy(model).to(device)
