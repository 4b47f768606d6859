from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from v3recon.io.images import list_photos, read_image, write_png


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, (x + y) * 4], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF", ".webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(gradient()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    found = read_image(path)
    assert found.dtype == np.uint8 and found.flags.writeable
    np.testing.assert_array_equal(found, gradient())


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg_is_close(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(gradient()).save(path, "JPEG", quality=95, subsampling=0)
    assert np.abs(read_image(path).astype(int) - gradient()).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_obeyed(tmp_path, orientation):
    upright = gradient()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(turned))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def test_grey_palette_and_bilevel(tmp_path):
    grey = gradient()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    palette = Image.fromarray(gradient()).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB"))
    )
    Image.fromarray(grey > 100).save(tmp_path / "two.png")
    found = read_image(tmp_path / "two.png")
    np.testing.assert_array_equal(found[..., 1], (grey > 100) * 255)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (10, 20, 30, 255)
    rgba[1] = (10, 20, 30, 0)
    rgba[1, 2, 3] = 51  # a fifth
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found[0], np.full((3, 3), (10, 20, 30)))
    np.testing.assert_array_equal(found[1, 0], (255, 255, 255))
    np.testing.assert_allclose(found[1, 2], 0.8 * 255 + 0.2 * np.array([10, 20, 30]), atol=1)


def test_cmyk(tmp_path):
    cmyk = Image.fromarray(gradient()).convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), gradient())
    cmyk.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - gradient()).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits(tmp_path, suffix):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path)
    expected = np.round(values / 257.0).astype(int)
    assert np.abs(read_image(path).astype(int) - expected[..., None]).max() <= 1


def test_dark_16_bits_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").max() <= 1


def test_float_grey(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[..., 2], values * 255, atol=0.51)


def bomb(path: Path, side: int) -> Path:
    """A PNG whose header promises side x side pixels and whose data is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    return path


def bad_files(folder: Path) -> dict[str, Path]:
    whole = folder / "whole.jpg"
    Image.fromarray(np.tile(gradient(), (8, 8, 1))).save(whole)
    data = whole.read_bytes()
    Image.fromarray(np.tile(gradient(), (8, 8, 1))).save(folder / "whole.png")
    png = (folder / "whole.png").read_bytes()
    files = {
        "truncated jpeg": ("t.jpg", data[: len(data) // 2]),
        "truncated png": ("t.png", png[: len(png) // 2]),
        "header only": ("h.jpg", data[:30]),
        "empty": ("e.jpg", b""),
        "text": ("text.jpg", b"this is no photo\n" * 20),
        "zeros": ("z.png", bytes(1000)),
        "broken checksum": ("c.png", png[:60] + bytes(40) + png[100:]),
    }
    made = {}
    for key, (name, content) in files.items():
        made[key] = folder / name
        made[key].write_bytes(content)
    made["bomb"] = bomb(folder / "bomb.png", 20_000)
    made["smaller bomb"] = bomb(folder / "bomb2.png", 14_000)
    made["missing"] = folder / "missing.png"
    made["folder"] = folder
    return made


@pytest.mark.filterwarnings("error")
def test_bad_files_give_one_line(tmp_path):
    for key, path in bad_files(tmp_path).items():
        with pytest.raises(ValueError) as caught:
            read_image(path)
        reason = str(caught.value)
        assert reason and "\n" not in reason and len(reason) < 150, (key, reason)


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[1, 2, 3]]])


def test_list_photos_searches_in_order_and_once(tmp_path):
    for name in ("b.JPG", "a.png", "sub/deep/c.webp", "sub/d.jpeg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "e.jpg").write_bytes(b"x")
    found = list_photos([tmp_path / "sub", tmp_path, tmp_path / "a.png"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["sub/d.jpeg", "sub/deep/c.webp", "a.png", "b.JPG"]


def test_list_photos_skips_results(tmp_path):
    (tmp_path / "me.jpg").write_bytes(b"x")
    (tmp_path / "out" / "me").mkdir(parents=True)
    (tmp_path / "out" / "me" / "me.png").write_bytes(b"x")
    (tmp_path / "out" / "me" / "me.npy").write_bytes(b"x")
    assert list_photos([tmp_path]) == [tmp_path / "me.jpg"]


def test_list_photos_takes_a_named_file_of_any_suffix(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"x")
    assert list_photos([tmp_path / "photo.heic"]) == [tmp_path / "photo.heic"]


def test_list_photos_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        list_photos([tmp_path / "none"])
    with pytest.raises(ValueError, match="no photos"):
        list_photos([tmp_path])


def test_write_png_round_trip_and_no_rest_on_failure(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", gradient())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), gradient())
    before = (tmp_path / "a.png").read_bytes()

    def fail(self, data):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_png(tmp_path / "a.png", gradient()[::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
