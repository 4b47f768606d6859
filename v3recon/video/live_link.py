"""Takes as Live Link Face recordings: the CSV that MetaHuman and Blender's importers read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.io.atomic import write_text_atomic
from v3recon.video.take import Take

SHAPES = (
    *(
        f"{shape}{side}"
        for side in ("Left", "Right")
        for shape in "EyeBlink EyeLookDown EyeLookIn EyeLookOut EyeLookUp EyeSquint EyeWide".split()
    ),
    *"JawForward JawRight JawLeft JawOpen MouthClose MouthFunnel MouthPucker MouthRight".split(),
    "MouthLeft",
    *(
        f"Mouth{shape}{side}"
        for shape in ("Smile", "Frown", "Dimple", "Stretch")
        for side in ("Left", "Right")
    ),
    *"MouthRollLower MouthRollUpper MouthShrugLower MouthShrugUpper".split(),
    *(
        f"Mouth{shape}{side}"
        for shape in ("Press", "LowerDown", "UpperUp")
        for side in ("Left", "Right")
    ),
    *"BrowDownLeft BrowDownRight BrowInnerUp BrowOuterUpLeft BrowOuterUpRight CheekPuff".split(),
    *"CheekSquintLeft CheekSquintRight NoseSneerLeft NoseSneerRight TongueOut".split(),
)
"""ARKit's 52 shapes in the order of Live Link Face."""

ROTATIONS = tuple(
    f"{part}{axis}" for part in ("Head", "LeftEye", "RightEye") for axis in ("Yaw", "Pitch", "Roll")
)
"""Nine rotations, radians, signs as in `geometry.rotation.euler_to_matrix`; the eyes' are 0, their
shapes say where they look."""

_ORDER = [ARKIT_NAMES.index(name[0].lower() + name[1:]) for name in SHAPES]


def write_live_link(path: str | Path, take: Take, rate: Fraction) -> None:
    """Write a take as CSV: time code, number of values, 61 values a frame; whole or not at all.

    Args:
        path: the file; its folder exists.
        take: of a face model whose first 52 expression coefficients are ARKit's.
        rate: frames a second of the time code.
    """
    weights = take.coeffs.exp[:, : len(ARKIT_NAMES)].numpy()[:, _ORDER].clip(0, 1)
    pitch, yaw, roll = take.coeffs.angle.numpy().T
    values = np.zeros((len(take), len(SHAPES) + len(ROTATIONS)))
    values[:, : len(SHAPES)] = weights
    values[:, len(SHAPES) : len(SHAPES) + 3] = np.stack([yaw, pitch, roll], 1)
    lines = [",".join(("Timecode", "BlendShapeCount", *SHAPES, *ROTATIONS))]
    for time, row in zip(take.times, values, strict=True):
        numbers = ",".join(f"{value:.9f}" for value in row)
        lines.append(f"{time_code(float(time), rate)},{len(row)},{numbers}")
    write_text_atomic(path, "\n".join(lines) + "\n")


def time_code(seconds: float, rate: Fraction) -> str:
    """HH:MM:SS:FF.fff, whole seconds and frames with thousandths of a frame."""
    thousandths = round(seconds % 1 * float(rate) * 1000)
    whole = int(seconds)
    if thousandths >= round(float(rate) * 1000):
        whole, thousandths = whole + 1, 0
    hours, minutes = whole // 3600, whole // 60 % 60
    frames, rest = divmod(thousandths, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole % 60:02d}:{frames:02d}.{rest:03d}"
