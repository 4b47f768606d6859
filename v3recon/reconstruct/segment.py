"""Where the eight facial parts of a reconstructed face lie in the image.

Two products, as in 3DDFA_V3: `segment_visible`, one label per pixel where a part is seen, and
`segment_parts`, each part's own triangles drawn alone. Labels: 0 none, p + 1 for part p of
PART_NAMES (the person's own right and left).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon._fast.threads import threads_limited
from v3recon.decode import seen_from_front
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.parts import EYE_LABELS, color_table
from v3recon.geometry.affine2d import compose_affine_2d, resize_affine_2d
from v3recon.geometry.camera import Camera, to_clip
from v3recon.reconstruct.faces import Face, Faces
from v3recon.reconstruct.precision import full_precision
from v3recon.render.interpolate import interpolate_labels
from v3recon.render.rasterize import cover, rasterize
from v3recon.render.visibility import facing_camera, touched_vertices
from v3recon.types import Decoded, Fragments


def segment_visible(
    decoded: Decoded,
    model: LinearFaceModel,
    camera: Camera,
    image_size: tuple[int, int],
    from_crop: Tensor | None = None,
    rasterizer: str = "auto",
    normals: Tensor | None = None,
) -> Tensor:
    """Labels of the parts that are seen, from one rasterisation (equals 3DDFA_V3's eight renders).

    A pixel belongs to part p where the interpolated indicator "vertex is of part p and visible" is
    at least one half; later parts lie over earlier ones where two reach one half.

    Args:
        decoded: B faces.
        model: their face model.
        camera: camera of the crop.
        image_size: (H, W) of the label map.
        from_crop: [B, 2, 3] affine map from crop pixels to the map's pixels; default identity. With
            it only the face's own window is rasterised, so that a large photo costs little.
        rasterizer: as in `render.rasterize.rasterize`.
        normals: [B, V, 3] rotated vertex normals when they are known already.

    Returns:
        [B, H, W] uint8, 0…8.
    """
    with full_precision():
        windows = _windows(decoded, camera, image_size, from_crop)
        facing = _facing(decoded, model) if normals is None else normals[..., 2] >= 0
        return _draw_visible(windows, decoded, model, image_size, rasterizer, lambda: facing)


def segment_both(
    decoded: Decoded,
    model: LinearFaceModel,
    camera: Camera,
    image_size: tuple[int, int],
    from_crop: Tensor | None = None,
    rasterizer: str = "auto",
    cut_out: bool = False,
) -> tuple[Tensor, Tensor]:
    """`segment_visible` and `segment_part_bits`, projected once; same arguments.

    With `cut_out` the faces fill the map, so that no window around them needs to be found.
    """
    # One thread for torch: its steps are so small that they would only wait for helpers.
    with full_precision(), threads_limited(1):
        windows = _windows(decoded, camera, image_size, from_crop, cut_out)
        arguments = (windows, decoded, model, image_size, rasterizer)
        if decoded.vertices.device.type != "cpu":
            facing = _facing(decoded, model)
            return _draw_visible(*arguments, lambda: facing), _draw_part_bits(*arguments)
        with ThreadPoolExecutor(1) as other:  # compiled, so at the same time
            facing_job = other.submit(_facing, decoded, model)
            bits = other.submit(_draw_part_bits, *arguments)
            return _draw_visible(*arguments, facing_job.result), bits.result()


def visible_labels(
    fragments: Fragments, faces: Tensor, part_labels: Tensor, visible: Tensor
) -> Tensor:
    """Part labels of a mesh that has been rasterised.

    Args:
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.
        part_labels: [V] 0 none, 1…8.
        visible: [B, V] bool, of `render.visibility.visible_vertices`.

    Returns:
        [B, H, W] uint8, 0…8.
    """
    seen_labels = (part_labels * visible).to(torch.uint8)
    return interpolate_labels(seen_labels, fragments, faces)


def segment_parts(
    decoded: Decoded,
    model: LinearFaceModel,
    camera: Camera,
    image_size: tuple[int, int],
    from_crop: Tensor | None = None,
    rasterizer: str = "auto",
) -> Tensor:
    """Where each part's own triangles project, whatever lies in front of them.

    Args:
        decoded: B faces.
        model: their face model.
        camera: camera of the crop.
        image_size: (H, W) of the masks.
        from_crop: [B, 2, 3] affine map from crop pixels to the masks' pixels; default identity.
        rasterizer: as in `render.rasterize.rasterize`.

    Returns:
        [B, 8, H, W] bool, in the order of PART_NAMES.
    """
    bits = segment_part_bits(decoded, model, camera, image_size, from_crop, rasterizer)
    return unpack_part_bits(bits)


def segment_part_bits(
    decoded: Decoded,
    model: LinearFaceModel,
    camera: Camera,
    image_size: tuple[int, int],
    from_crop: Tensor | None = None,
    rasterizer: str = "auto",
) -> Tensor:
    """`segment_parts` packed: [B, H, W] uint8, bit p of a pixel = part p; same arguments."""
    with full_precision():
        windows = _windows(decoded, camera, image_size, from_crop)
        return _draw_part_bits(windows, decoded, model, image_size, rasterizer)


def unpack_part_bits(bits: Tensor) -> Tensor:
    """Masks [B, 8, H, W] bool of packed bits [B, H, W] uint8."""
    masks = torch.empty(
        len(bits), len(PART_NAMES), *bits.shape[1:], dtype=torch.bool, device=bits.device
    )
    for part in range(len(PART_NAMES)):
        torch.ne(bits & (1 << part), 0, out=masks[:, part])
    return masks


def part_overlaps(labels: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of each part, [B, 8]; NaN where the target lacks the part.

    Args:
        labels: [B, H, W] predicted labels 0…8.
        target: [B, H, W] true labels 0…8.
    """
    assert labels.shape == target.shape and labels.ndim == 3, (labels.shape, target.shape)
    numbers = torch.arange(1, len(PART_NAMES) + 1, device=labels.device)[None, :, None, None]
    one, other = labels[:, None] == numbers, target[:, None] == numbers
    union = (one | other).sum((2, 3))
    overlap = (one & other).sum((2, 3)) / union
    return torch.where(other.any(3).any(2), overlap, torch.nan)


def colorize_labels(labels: Tensor) -> Tensor:
    """Pictures of label maps.

    Args:
        labels: [B, H, W] integers 0…8.

    Returns:
        [B, 3, H, W] RGB, 0…1.
    """
    colors = color_table(labels.device).float() / 255
    return colors[labels.long()].permute(0, 3, 1, 2)


_Windows = list[tuple[slice, tuple[slice, slice], Tensor]]


def _draw_visible(
    windows: _Windows,
    decoded: Decoded,
    model: LinearFaceModel,
    image_size: tuple[int, int],
    rasterizer: str,
    facing: Callable[[], Tensor],
) -> Tensor:
    """Labels [B, H, W] uint8 of the windows' parts that are seen; `facing` [B, V] is asked late."""
    vertices = decoded.vertices
    labels = torch.zeros(len(vertices), *image_size, dtype=torch.uint8, device=vertices.device)
    for items, (rows, columns), clip in windows:
        size = (rows.stop - rows.start, columns.stop - columns.start)
        fragments = rasterize(clip, model.faces, size, rasterizer)
        touched = touched_vertices(fragments, model.faces, model.vertex_count)
        labels[items, rows, columns] = visible_labels(
            fragments, model.faces, model.part_labels, touched & facing()[items]
        )
    return labels


def _draw_part_bits(
    windows: _Windows,
    decoded: Decoded,
    model: LinearFaceModel,
    image_size: tuple[int, int],
    rasterizer: str,
) -> Tensor:
    """Bits [B, H, W] uint8 of the parts drawn alone in the windows; nothing has a gradient."""
    vertices = decoded.vertices
    faces, group = _part_triangles(model)
    bits = torch.zeros(len(vertices), *image_size, dtype=torch.uint8, device=vertices.device)
    for items, (rows, columns), clip in windows:
        size = (rows.stop - rows.start, columns.stop - columns.start)
        bits[items, rows, columns] = cover(clip, faces, group, size, rasterizer)
    return bits


def _facing(decoded: Decoded, model: LinearFaceModel) -> Tensor:
    """Vertices turned toward the camera, [B, V] bool."""
    return facing_camera(decoded.vertices, model.faces, model.vertex_faces)


_PART_TRIANGLES: WeakKeyDictionary[LinearFaceModel, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def _part_triangles(model: LinearFaceModel) -> tuple[Tensor, Tensor]:
    """All parts' own triangles [F', 3] and the part 0…7 of each; kept while the model lives."""
    known = _PART_TRIANGLES.get(model)
    if known is None or known[0].device != model.faces.device:
        sets = list(model.part_faces)
        if model.group_labels is not None:
            # Whole eyeballs and the backs of lids are no part of an eye.
            front = seen_from_front(model)
            for part in EYE_LABELS:
                sets[part - 1] = sets[part - 1][front[sets[part - 1]].any(1)]
        faces = torch.cat(sets)
        group = torch.repeat_interleave(
            torch.arange(len(PART_NAMES), device=faces.device, dtype=torch.uint8),
            torch.tensor([len(part) for part in sets], device=faces.device),
        )
        known = _PART_TRIANGLES[model] = faces, group
    return known


def _windows(
    decoded: Decoded,
    camera: Camera,
    image_size: tuple[int, int],
    from_crop: Tensor | None,
    cut_out: bool = False,
) -> _Windows:
    """Parts of the raster worth drawing: batch items, rows and columns, clip coordinates there.

    Without `from_crop`, or with `cut_out`, this is the whole raster for the whole batch; else one
    window per item around the item's vertices.
    """
    height, width = image_size
    if from_crop is None or cut_out:
        everything = (slice(0, height), slice(0, width))
        clip = to_clip(decoded.vertices, camera, image_size, from_crop)
        return [(slice(0, len(decoded.vertices)), everything, clip)]
    from_crop = from_crop.expand(len(decoded.vertices), 2, 3)
    points = decoded.points_2d @ from_crop[..., :2].transpose(-1, -2) + from_crop[:, None, :, 2]
    limit = points.new_tensor([width, height])
    first = points.amin(1).floor().nan_to_num(0.0).clamp(min=0).minimum(limit).long().tolist()
    last = (points.amax(1).ceil() + 1).nan_to_num(0.0).clamp(min=0).minimum(limit).long().tolist()
    windows = []
    for item, ((left, top), (right, bottom)) in enumerate(zip(first, last, strict=True)):
        if left >= right or top >= bottom:
            continue
        one = slice(item, item + 1)
        shift = from_crop.new_tensor([[0, 0, left], [0, 0, top]])
        size = (bottom - top, right - left)
        clip = to_clip(decoded.vertices[one], camera, size, from_crop[one] - shift)
        windows.append((one, (slice(top, bottom), slice(left, right)), clip))
    return windows


MAX_DRAWN_SIDE = 1024
"""Larger faces are segmented in a picture of this size, which is enlarged to the photo's."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Facial parts of the faces of a photo, numpy arrays; an index gives one face's [H, W].

    Attributes:
        labels: [N, H, W] uint8, the part that is seen: 0 none, 1…8 = PART_NAMES.
        part_bits: [N, H, W] uint8, bit p is set where part p projects, seen or not.
    """

    labels: np.ndarray
    part_bits: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """[N, 8, H, W] bool, each part alone, seen or not, in the order of PART_NAMES."""
        return np.stack([self.part_bits >> part & 1 for part in range(len(PART_NAMES))], -3) > 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice) -> Parts:
        return Parts(self.labels[index], self.part_bits[index])


def segment(faces: Faces | Face, rasterizer: str | None = None) -> Parts:
    """Draw the eight parts of faces into their photo.

    Args:
        faces: faces of one photo, or one of them.
        rasterizer: see `render.rasterize.rasterize`; default the faces' own.

    Returns:
        Parts [N, H, W] of `Faces`, [H, W] of a `Face`.
    """
    if isinstance(faces, Face):
        return segment(faces.batch, rasterizer)[0]
    labels = np.zeros((len(faces), *faces.image_size), np.uint8)
    bits = np.zeros_like(labels)
    for number, face in enumerate(faces):
        _draw_face(face.batch, labels[number], bits[number], rasterizer or faces.rasterizer)
    return Parts(labels, bits)


def _draw_face(face: Faces, labels: np.ndarray, bits: np.ndarray, rasterizer: str) -> None:
    """Draw one face into maps [H, W] of its photo."""
    height, width = face.image_size
    points = face.points_photo[0].cpu().numpy().T.copy()  # numpy reduces rows 30 times faster
    low = np.maximum(np.floor(points.min(1)), 0)
    high = np.minimum(np.ceil(points.max(1)) + 1, [width, height])
    left, top, right, bottom = (int(edge) for edge in (*low, *high))
    if right <= left or bottom <= top:
        return  # the face lies outside of the photo
    window = (bottom - top, right - left)
    shrink = min(1.0, MAX_DRAWN_SIDE / max(window))
    size = (max(1, round(window[0] * shrink)), max(1, round(window[1] * shrink)))
    to_drawing = resize_affine_2d((size[1] / window[1], size[0] / window[0]), (left, top))
    from_crop = compose_affine_2d(to_drawing, face.crop.inverse_matrix).to(face.points_photo)
    arguments = (face.decoded, face.model, face.camera, size, from_crop, rasterizer)
    drawings = segment_both(*arguments, cut_out=True)
    for whole, map_ in zip((labels, bits), drawings, strict=True):
        drawn = map_[0].cpu().numpy()
        if shrink < 1:
            drawn = cv2.resize(drawn, window[::-1], interpolation=cv2.INTER_NEAREST)
        whole[top:bottom, left:right] = drawn
