"""CelebAMask-HQ label pictures: the 19 classes, the eight face parts and what hides a face.

The masks are palette PNGs whose palette index is the class (Lee et al., MaskGAN, CVPR 2020). Sides
of the parts are the person's own: classes 4, 6, 8 lie on the image's right and are the left eye,
brow and ear.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v3recon.io.label_pictures import read_label_picture

CLASS_NAMES = (
    "background",
    "skin",
    "nose",
    "glasses",
    "left_eye",
    "right_eye",
    "left_eyebrow",
    "right_eyebrow",
    "left_ear",
    "right_ear",
    "inner_mouth",
    "up_lip",
    "down_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
)
"""Name of each class number."""

CELEBAMASK_TO_LABEL = {5: 1, 4: 2, 7: 3, 6: 4, 2: 5, 11: 6, 12: 7, 1: 8}
"""Class to part label: 0 none, p + 1 = `PART_NAMES[p]` of the face models."""
LABEL_TO_CELEBAMASK = {label: number for number, label in CELEBAMASK_TO_LABEL.items()}
"""The other way round."""

OCCLUDER_CLASSES = tuple(CLASS_NAMES.index(name) for name in ("glasses", "hair", "hat"))
"""Classes that hide the face."""

_EYES, _BROWS, _EARS = (
    (CLASS_NAMES.index(f"right_{name}"), CLASS_NAMES.index(f"left_{name}"))
    for name in ("eye", "eyebrow", "ear")
)
_LOWER = tuple(CLASS_NAMES.index(name) for name in ("nose", "up_lip", "down_lip"))
_LABEL_TABLE = np.zeros(len(CLASS_NAMES), np.uint8)
_LABEL_TABLE[list(CELEBAMASK_TO_LABEL)] = list(CELEBAMASK_TO_LABEL.values())
_CLASS_TABLE = np.zeros(len(LABEL_TO_CELEBAMASK) + 1, np.uint8)
_CLASS_TABLE[list(LABEL_TO_CELEBAMASK)] = list(LABEL_TO_CELEBAMASK.values())


@dataclass(frozen=True)
class CelebaMask:
    """One mask.

    Attributes:
        classes: [H, W] uint8 0…18, `CLASS_NAMES`; sides are the person's own.
        repaired: left and right were exchanged in the file and are put right here.
    """

    classes: np.ndarray
    repaired: bool

    @property
    def labels(self) -> np.ndarray:
        """Part labels [H, W] uint8: 0 none, p + 1 = `PART_NAMES[p]`."""
        return _LABEL_TABLE[self.classes]

    def of(self, *names: str) -> np.ndarray:
        """Pixels [H, W] bool of any of the classes of these `CLASS_NAMES`."""
        return np.isin(self.classes, [CLASS_NAMES.index(name) for name in names])

    @property
    def occluders(self) -> np.ndarray:
        """Pixels [H, W] bool of what hides the face: glasses, hair, hat."""
        return np.isin(self.classes, OCCLUDER_CLASSES)


def read_celebamask(path: Path, *, repair: bool = True) -> CelebaMask:
    """Read one mask.

    Args:
        path: PNG.
        repair: put exchanged sides right, see `repair_sides`.

    Raises:
        ValueError: if it cannot be read, has unknown classes or holds no face part at all.
    """
    classes = read_classes(path)
    if not _LABEL_TABLE[classes].any():
        raise ValueError(f"{path} holds no face part (classes {np.unique(classes).tolist()})")
    repaired = _repaired(classes, (_EYES, _BROWS, _EARS), _LOWER) if repair else classes
    return CelebaMask(repaired, repaired is not classes)


def read_classes(path: Path) -> np.ndarray:
    """A mask's classes [H, W] uint8 0…18 as the file has them.

    Raises:
        ValueError: if it is not a palette or grey PNG of these classes.
    """
    classes = read_label_picture(path)
    try:
        _check(classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return classes


def labels_from_celebamask(classes: np.ndarray) -> np.ndarray:
    """Part labels 0…8 of a class map; ears, neck, hair and the rest become 0.

    Args:
        classes: [H, W] integers 0…18.

    Returns:
        [H, W] uint8, 0 none, p + 1 = `PART_NAMES[p]`.

    Raises:
        ValueError: for a map of another shape or with unknown classes.
    """
    _check(classes)
    return _LABEL_TABLE[classes]


def classes_of_labels(labels: np.ndarray) -> np.ndarray:
    """CelebAMask-HQ classes [H, W] uint8 of part labels [H, W] 0…8; 0 is background."""
    return _CLASS_TABLE[labels]


def repair_sides(labels: np.ndarray) -> np.ndarray:
    """Give eyes and brows back to the person's own side where a mask has them reversed.

    About 7 % of the hand-made masks (60 of 871 with two eyes) name the eye and the brow on the
    image's left the person's left ones. Up is told by nose and lips, so rolled heads are judged
    rightly. A pair with one side missing follows the other pair, or stays.

    Args:
        labels: [H, W] part labels 0…8.

    Returns:
        [H, W] the same array where nothing was wrong, else a repaired copy.
    """
    eyes, brows = (tuple(CELEBAMASK_TO_LABEL[n] for n in pair) for pair in (_EYES, _BROWS))
    return _repaired(labels, (eyes, brows), tuple(CELEBAMASK_TO_LABEL[n] for n in _LOWER))


def _check(classes: np.ndarray) -> None:
    if classes.ndim != 2:
        raise ValueError(f"a mask of classes is [H, W], got {classes.shape}")
    if classes.size and (classes.min() < 0 or classes.max() >= len(CLASS_NAMES)):
        raise ValueError(
            f"the mask holds classes {classes.min()}…{classes.max()}, CelebAMask-HQ has "
            f"0…{len(CLASS_NAMES) - 1}"
        )


def _repaired(
    picture: np.ndarray, pairs: tuple[tuple[int, ...], ...], lower: tuple[int, ...]
) -> np.ndarray:
    """Exchange (right, left) pairs of values that lie on the wrong sides; eyes and brows vote."""
    table = np.arange(256, dtype=np.uint8)
    below = _center(np.isin(picture, lower))
    eyes, brows = (_reversed(picture, below, *pair) for pair in pairs[:2])
    # Ears follow: an exchanged mask is one of a mirrored photo, an ear alone says nothing.
    verdicts = (brows if eyes is None else eyes, eyes if brows is None else brows)
    for (right, left), wrong in zip(pairs, (*verdicts, verdicts[0]), strict=False):
        if wrong:
            table[[right, left]] = [left, right]
    if (table == np.arange(256)).all():
        return picture
    return table[picture].astype(picture.dtype)


def _reversed(picture: np.ndarray, below: np.ndarray | None, right: int, left: int) -> bool | None:
    """Whether a pair lies on the wrong sides; None where one of it is missing."""
    here, there = _center(picture == right), _center(picture == left)
    if here is None or there is None:
        return None
    down = np.array([0.0, 1.0]) if below is None else below - (here + there) / 2
    return bool((here - there) @ np.array([-down[1], down[0]]) < 0)  # toward the viewer's left


def _center(mask: np.ndarray) -> np.ndarray | None:
    """Mean (x, y) of a mask's pixels, None if it has none."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) if len(rows) else None
