"""ARKit's shapes as Live Link Face gives them: CSV recordings, and packets to a running engine.

MetaHuman and Blender's importers read the recordings; the Live Link plug-in of Unreal Engine
listens to the packets.
"""

from __future__ import annotations

import socket
import struct
import uuid
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

PACKET_SHAPES = tuple(
    {"JawLeft": "JawRight", "JawRight": "JawLeft", "MouthLeft": "MouthRight",
     "MouthRight": "MouthLeft"}.get(name, name)
    for name in SHAPES
)  # fmt: skip
"""The same in the order of packets: left before right for jaw and mouth too."""
LIVE_LINK_PORT = 11111
_PACKET_VERSION = 6
_ORDER, _PACKET_ORDER = (
    [ARKIT_NAMES.index(name[0].lower() + name[1:]) for name in names]
    for names in (SHAPES, PACKET_SHAPES)
)


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


def live_link_packet(
    subject: str, exp: np.ndarray, angle: np.ndarray, frame: int, rate: int
) -> bytes:
    """One frame of a face as Live Link Face sends it.

    Version (4 bytes, little-endian), "$" and a UUID, length of the name and the name, frame and
    part of a frame, rate and its denominator, 61 and as many float32, big-endian.

    Args:
        subject: name of the face in the engine; gives the UUID.
        exp: [52 or more] ARKit weights in Apple's order; kept within 0…1.
        angle: [3] pitch, yaw, roll, radians.
        frame: number of the frame.
        rate: frames a second.
    """
    pitch, yaw, roll = (float(value) for value in angle)
    shapes = exp[: len(ARKIT_NAMES)][_PACKET_ORDER].clip(0, 1)
    values = [*shapes.tolist(), yaw, pitch, roll, *[0.0] * (len(ROTATIONS) - 3)]
    name = subject.encode()
    return (
        struct.pack("<I", _PACKET_VERSION)
        + f"${uuid.uuid5(uuid.NAMESPACE_DNS, subject)}".encode()
        + struct.pack("!i", len(name))
        + name
        + struct.pack("!IfII", frame, 0.0, rate, 1)
        + struct.pack(f"!B{len(values)}f", len(values), *values)
    )


class LiveLinkSender:
    """Sends packets of faces to a running engine by UDP; packets that get lost are not repeated."""

    def __init__(self, address: str) -> None:
        """Find the engine.

        Args:
            address: HOST or HOST:PORT; default port `LIVE_LINK_PORT`.

        Raises:
            ValueError: if the address cannot be used.
        """
        host, _, port = address.partition(":")
        try:
            self._to = (socket.gethostbyname(host), int(port or LIVE_LINK_PORT))
            if not host or not 0 < self._to[1] < 65536:
                raise ValueError
        except (OSError, ValueError, UnicodeError):
            raise ValueError(f"{address!r} is no HOST or HOST:PORT that can be found") from None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, packet: bytes) -> None:
        """Send one packet; without a network it is dropped."""
        try:
            self._socket.sendto(packet, self._to)
        except OSError:
            return

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
