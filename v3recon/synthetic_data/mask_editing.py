"""Edited part masks M -> M' for a mask-conditioned generator (3DDFA_V3's own first step).

Each part of a CelebAMask-HQ mask moves by the affine map that its landmarks make; what it leaves
becomes skin, what opens between the lips becomes inner mouth.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

import cv2
import numpy as np

from v3recon.face_models.detector_mesh import load_face_mesh

Generator = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(image [S, S, 3] uint8 RGB, mask [S, S] classes, edited mask) -> image [S, S, 3] uint8."""
_SKIN, _INNER_MOUTH = 1, 10
_RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
_NOSE = (168, 6, 197, 195, 5, 4, 2, 98, 327, 64, 294, 48, 278)
_UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 81, 13, 311)
_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 178, 14, 402)


def part_points() -> dict[int, np.ndarray]:
    """CelebAMask-HQ class -> ids of the mesh points that move it, lower layers first."""
    mesh = load_face_mesh()
    brow = np.array(_RIGHT_BROW)
    return {
        2: np.array(_NOSE),
        7: brow,
        6: mesh.mirror[brow],
        5: mesh.right_eye,
        4: mesh.left_eye,
        11: np.array(_UPPER_LIP),
        12: np.array(_LOWER_LIP),
    }


def solve_affine(before: np.ndarray, after: np.ndarray, damping: float = 1e-3) -> np.ndarray:
    """Least-squares affine map [2, 3] of points [N, 2], damped toward a shift.

    Args:
        before: [N, 2].
        after: [N, 2].
        damping: over the points' variance; keeps flat parts from shearing.
    """
    start, end = before.mean(0), after.mean(0)
    a, b = before - start, after - end
    gram = a.T @ a
    weight = damping * np.trace(gram) * np.eye(2)
    linear = np.linalg.solve(gram + weight, a.T @ b + weight).T
    return np.concatenate([linear, (end - linear @ start)[:, None]], 1)


def edit_mask(mask: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Move the parts of a mask.

    Args:
        mask: [H, W] uint8 CelebAMask-HQ classes.
        before: [468, 2 or 3] mesh in the mask's pixels.
        after: [468, 2 or 3] mesh after the edit.

    Returns:
        [H, W] uint8.
    """
    height, width = mask.shape
    groups = part_points()
    edited = np.where(np.isin(mask, [*groups, _INNER_MOUTH]), _SKIN, mask).astype(np.uint8)
    jaw = load_face_mesh().outline
    chin = np.zeros_like(mask)
    cv2.fillPoly(chin, [np.round(after[jaw, :2]).astype(np.int32)], 1)
    edited[(chin > 0) & np.isin(edited, (0, 17, 18))] = _SKIN
    mouth = np.zeros_like(mask)
    cv2.fillPoly(mouth, [np.round(after[load_face_mesh().mouth, :2]).astype(np.int32)], 1)
    opened = np.linalg.norm(after[13, :2] - after[14, :2]) > 1.5
    for part, ids in groups.items():
        matrix = solve_affine(before[ids, :2], after[ids, :2])
        if abs(np.linalg.det(matrix[:, :2])) < 0.02:
            continue  # a closed eye has no area left
        own = (mask == part).astype(np.uint8)
        moved = cv2.warpAffine(own, matrix, (width, height), flags=cv2.INTER_NEAREST)
        edited[moved > 0] = part
    if opened:
        edited[mouth > 0] = _INNER_MOUTH
    return edited


def load_generator(name: str) -> Generator:
    """The function named "module:function".

    Raises:
        ValueError: if there is no such function.
    """
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--generator {name!r}: {error}; expected module:function") from error
    if not callable(found):
        raise ValueError(f"--generator {name!r} is not a function")
    return cast(Generator, found)


def run_generator(
    generator: Generator, image: np.ndarray, mask: np.ndarray, edited: np.ndarray
) -> np.ndarray:
    """Call a generator and check what it gives.

    Raises:
        ValueError: if it does not return an image of the same size.
    """
    made = np.asarray(generator(image, mask, edited))
    if made.shape != image.shape or made.dtype != np.uint8:
        raise ValueError(
            f"the generator returned {made.dtype} {made.shape}, not uint8 {image.shape}"
        )
    return made
