from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from v3recon.io.images import read_image, write_png


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


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".JPG_large", ""])
def test_jpeg_under_other_names(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(gradient()).save(path, "JPEG", quality=95, subsampling=0)
    assert np.abs(read_image(path).astype(int) - gradient()).mean() < 2


@pytest.mark.parametrize("kind", ["MPO", "GIF", "WEBP", "PNG", "TIFF"])
def test_first_of_several_frames(tmp_path, kind):
    first, second = Image.fromarray(gradient()), Image.new("RGB", (30, 20), "blue")
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 95, "subsampling": 0}}
    path = tmp_path / "a"
    first.save(path, kind, save_all=True, append_images=[second], **options.get(kind, {}))
    found = read_image(path).astype(int)
    assert np.abs(found - gradient()).mean() < (12 if kind == "GIF" else 2)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM"])
def test_less_common_formats(tmp_path, kind):
    image = np.tile(gradient(), (3, 3, 1))
    if kind == "AVIF" and kind not in Image.SAVE:
        pytest.skip("Pillow reads AVIF from 11.3 on")
    Image.fromarray(image).save(tmp_path / "a", kind)
    assert np.abs(read_image(tmp_path / "a").astype(int) - image).mean() < 8


@pytest.mark.parametrize(
    ("library", "kind", "package"),
    [("pillow_heif", "HEIF", "pillow-heif"), ("pillow_jxl", "JXL", "pillow-jxl-plugin")],
)
def test_formats_of_plugins(tmp_path, monkeypatch, library, kind, package):
    """Without the plug-in the reason says what to install; with it the photo is read."""
    starts = {"HEIF": b"\0\0\0\x18ftypheic" + bytes(40), "JXL": b"\xff\x0a" + bytes(40)}
    (tmp_path / "bad").write_bytes(starts[kind])
    with monkeypatch.context() as without:
        known = {key: value for key, value in Image.OPEN.items() if key not in ("HEIF", "JXL")}
        without.setattr(Image, "OPEN", known)
        without.setitem(sys.modules, library, None)
        with pytest.raises(ValueError, match=f"pip install {package}"):
            read_image(tmp_path / "bad")
    plugin = pytest.importorskip(library)
    getattr(plugin, "register_heif_opener", lambda: None)()
    image = Image.fromarray(np.tile(gradient(), (4, 4, 1)))
    image.save(tmp_path / "a", kind, quality=95)
    assert np.abs(read_image(tmp_path / "a").astype(int) - np.asarray(image)).mean() < 4
    with pytest.raises(ValueError, match="photo"):
        read_image(tmp_path / "bad")


ODD_TAGS = {  # (tag, type, count, value): types that the standard forbids there
    "orientation as long": (0x0112, 4, 1, struct.pack("<I", 6)),
    "orientation as signed": (0x0112, 8, 1, struct.pack("<hH", 6, 0)),
    "orientation as bytes": (0x0112, 1, 1, bytes([6, 0, 0, 0])),
    "two orientations": (0x0112, 3, 2, struct.pack("<HH", 6, 1)),
    "make as rational": (0x010F, 5, 1, struct.pack("<I", 8)),
    "resolution as text": (0x011A, 2, 4, b"72/1"),
    "width as floats": (0x0100, 11, 1, struct.pack("<f", 3.0)),
    "unknown type": (0x010E, 77, 1, bytes(4)),
    "offset out of the file": (0x010E, 2, 100_000, struct.pack("<I", 1 << 30)),
}


@pytest.mark.parametrize("name", ODD_TAGS)
def test_odd_tags_do_not_hide_the_photo_or_its_orientation(tmp_path, name):
    tag, kind, count, value = ODD_TAGS[name]
    fields = [struct.pack("<HHI", tag, kind, count) + value]
    if tag != 0x0112:
        fields.append(struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0))
    fields.sort(key=lambda field: field[:2][::-1])
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)
    turned = np.ascontiguousarray(np.rot90(gradient(), 1))
    Image.fromarray(turned).save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0" + tiff)
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == gradient().shape
    assert np.abs(found.astype(int) - gradient()).mean() < 4


@pytest.mark.parametrize("value", [0, 9, 77, 65535])
def test_impossible_orientations_turn_nothing(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), gradient())


def matrix_profile(primaries: dict[str, tuple[float, float]], gamma: float) -> bytes:
    """An RGB profile of three primaries (CIE xy, white D65) and one exponent (ICC.1:2004)."""
    white = np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290])
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    d50 = np.array([0.96422, 1.0, 0.82521])
    gain = (bradford @ d50) / (bradford @ white)
    to_xyz = np.linalg.inv(bradford) @ np.diag(gain) @ bradford @ linear(primaries)

    def fixed(values: np.ndarray) -> bytes:
        return struct.pack(">3i", *np.round(np.asarray(values) * 65536).astype(int))

    text = b"test profile\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + fixed(d50),
        b"rXYZ": b"XYZ " + bytes(4) + fixed(to_xyz[:, 0]),
        b"gXYZ": b"XYZ " + bytes(4) + fixed(to_xyz[:, 1]),
        b"bXYZ": b"XYZ " + bytes(4) + fixed(to_xyz[:, 2]),
    }
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        table += key + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    header = struct.pack(">I4s4s4s4s4s", size, bytes(4), b"\x02\x10\0\0", b"mntr", b"RGB ", b"XYZ ")
    header = (header + bytes(12) + b"acsp").ljust(68, b"\0") + fixed(d50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


ADOBE = {"r": (0.64, 0.33), "g": (0.21, 0.71), "b": (0.15, 0.06)}
P3 = {"r": (0.68, 0.32), "g": (0.265, 0.69), "b": (0.15, 0.06)}
SRGB = {"r": (0.64, 0.33), "g": (0.30, 0.60), "b": (0.15, 0.06)}


def linear(primaries: dict[str, tuple[float, float]]) -> np.ndarray:
    """Linear RGB of these primaries and white D65 to XYZ, [3, 3]."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries.values()]).T
    return xyz * np.linalg.solve(xyz, np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290]))


@pytest.mark.parametrize("primaries", [ADOBE, P3], ids=["Adobe", "P3"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_color_profiles_are_converted_to_srgb(tmp_path, primaries, suffix):
    """Colors inside sRGB's range, against the equations of the two spaces."""
    wanted = np.random.default_rng(0).integers(60, 200, (16, 16, 3))
    value = wanted / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    other = light @ (np.linalg.inv(linear(primaries)) @ linear(SRGB)).T
    stored = np.round(255 * other ** (1 / 2.2)).astype(np.uint8)
    assert np.abs(stored.astype(int) - wanted).max() > 8, "ignoring the profile would be seen"
    options = {"lossless": True} if suffix == ".webp" else {}
    profile = matrix_profile(primaries, 2.2)
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", icc_profile=profile, **options)
    found = read_image(tmp_path / f"a{suffix}").astype(int)
    assert np.abs(found - wanted).max() <= 3 and np.abs(found - wanted).mean() < 0.7
    alpha = np.dstack([stored, np.full((16, 16), 255, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), found)


def test_srgb_and_broken_profiles_change_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = matrix_profile(P3, 2.2)
    for profile in (srgb, whole[:200], b"x" * 500, whole[:128] + bytes(400), b""):
        Image.fromarray(gradient()).save(tmp_path / "a.png", icc_profile=profile)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), gradient())
    Image.fromarray(gradient()[..., 0]).save(tmp_path / "grey.png", icc_profile=whole)
    assert (read_image(tmp_path / "grey.png")[..., 0] == gradient()[..., 0]).all()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_16(tmp_path, bits, suffix, channels):
    import cv2

    eight = gradient() if channels == 3 else gradient()[..., 0]
    deep = np.round(eight / 255.0 * (2**bits - 1)).astype(np.uint16)
    deep[0, 0] = 2**bits - 1
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), deep[..., ::-1] if channels == 3 else deep)
    found = read_image(path)[1:].astype(int)
    expected = eight[1:] if channels == 3 else eight[1:, :, None]
    assert np.abs(found - expected).max() <= 1


def test_raw_files_and_links_say_what_they_are(tmp_path):
    (tmp_path / "a.NEF").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(ValueError, match="raw file; export"):
        read_image(tmp_path / "a.NEF")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="link"):
        read_image(tmp_path / "link.jpg")


def test_strips_leave_no_seams(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1100, 7, 4), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    alpha = image[..., 3:] / 255.0
    expected = image[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1
    palette = Image.fromarray(image[..., :3]).quantize(64)
    palette.save(tmp_path / "p.png", transparency=3)
    whole = Image.open(tmp_path / "p.png").convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    expected = np.asarray(Image.alpha_composite(white, whole).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)
