import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from v3recon._fast.png import encode_png
from v3recon.io.images import write_png

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (33, 31), (64, 257)]


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def assert_reads_back(data: bytes, picture: np.ndarray) -> None:
    """Pillow and OpenCV both find these pixels."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG" and image.mode == ("RGB" if picture.ndim == 3 else "L")
        image.load()  # checks the sums
        np.testing.assert_array_equal(np.asarray(image), picture)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = picture[..., ::-1] if picture.ndim == 3 else picture
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("shape", [*SHAPES, *((*shape, 3) for shape in SHAPES)])
def test_every_pixel_comes_back(shape):
    assert_reads_back(encode_png(random_picture(*shape)), random_picture(*shape))


@pytest.mark.parametrize(
    "view",
    [
        lambda big: big[::2, 1::3],
        lambda big: big[::-1, ::-1],
        lambda big: big.transpose(1, 0, 2),
        lambda big: big[..., ::-1],
        lambda big: np.asfortranarray(big),
        lambda big: big[..., 1],
        lambda big: np.broadcast_to(big[:1], big.shape),
    ],
)
def test_any_memory_order(view):
    picture = view(random_picture(20, 30, 3))
    assert_reads_back(encode_png(picture), np.ascontiguousarray(picture))


def test_smooth_pictures_become_small():
    ramp = np.arange(256, dtype=np.uint8)
    picture = np.add.outer(ramp, ramp)  # wraps, as the differences do
    data = encode_png(picture)
    assert_reads_back(data, picture)
    assert len(data) < picture.size / 20


def test_only_the_chunks_that_a_png_needs():
    data, names, at = encode_png(random_picture(5, 4, 3)), [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        names.append(data[at + 4 : at + 8])
        at += 12 + length
    assert at == len(data) and names == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), bool),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, picture):
    with pytest.raises(ValueError, match=r"picture|pixels"):
        write_png(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())
