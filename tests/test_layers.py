"""Imports go from higher layers to lower ones only, and each optional library has one owner."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    {"types", "geometry", "_fast"},
    {"io"},
    {"face_models", "render"},
    {"decode", "losses", "networks", "detection", "uv"},
    {"light"},
    {"reconstruct"},
    {"fitting"},
    {"data", "photohead", "video"},
    {"training", "export", "batch", "view", "evaluation", "part_masks", "synthetic_data"},
    {"cli"},
    {"demo", "train", "__main__"},
)
LAYER = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}

# The house's own rule for losses: networks and bases are arguments.
LOWEST_ONLY = {"losses"}

ONE_OWNER = {
    "pillow_heif": "v3recon/io/_image_plugins.py",
    "pillow_jxl": "v3recon/io/_image_plugins.py",
    # What runs without torch may not know what exports; the latter also quantizes.
    "onnxruntime": {"v3recon/light/files.py", "v3recon/export/int8_network.py"},
    "onnx": {
        "v3recon/export/onnx_files.py",
        "v3recon/export/int8_network.py",
        "v3recon/export/half_weights.py",
    },
    "pyarrow": "v3recon/batch/parquet.py",
    "av": "v3recon/video/frames.py",
    "trimesh": "v3recon/io/_trimesh.py",
    "pxr": "v3recon/io/usd.py",
    "nvdiffrast": "v3recon/render/_nvdiffrast.py",
    "retinaface": "v3recon/detection/retinaface.py",
}


def sources() -> list[Path]:
    programs = [ROOT / name for name in ("demo.py", "train.py")]
    folders = [ROOT / name / "__main__.py" for name in ("part_masks", "synthetic_data")]
    return [*(ROOT / "v3recon").rglob("*.py"), *programs, *folders]


def unit_of(module: str) -> str:
    """ "v3recon.render.rasterize" is of the unit "render"; entry points outside are programs."""
    parts = module.split(".")
    if parts[0] != "v3recon":
        return parts[-1]
    return parts[1] if len(parts) > 1 else "v3recon"


def imports_of(path: Path) -> Iterator[str]:
    """Full names of imported modules; `from package import name` counts as package.name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports() -> Iterator[tuple[str, str, str, str]]:
    """(file, its unit, imported module, its unit) for every import between units."""
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        unit = unit_of(name.removesuffix(".py").replace("/", "."))
        if unit in ("__init__", "v3recon"):
            continue  # the package's front page picks light names of any layer
        for module in imports_of(path):
            target = unit_of(module)
            if module.split(".")[0] == "v3recon" and target not in (unit, "v3recon"):
                yield name, unit, module, target


def test_every_unit_has_a_layer():
    units = {
        unit_of(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        for path in sources()
    }
    assert units - set(LAYER) - {"__init__", "v3recon"} == set()


def test_imports_go_down():
    wrong = [
        f"{file} (layer {LAYER[unit]}) imports {module} (layer {LAYER[target]})"
        for file, unit, module, target in own_imports()
        if LAYER[target] >= LAYER[unit]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_of_contributing_is_this_one():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| L(\d+) \| (.*?) \|", text, re.MULTILINE))
    found = [set(re.findall(r"`(\w+)`", rows[str(layer)])) for layer in range(len(rows) - 1)]
    assert found == list(LAYERS[:-1])
    assert rows[str(len(LAYERS) - 1)].startswith("`demo.py`, `train.py`")


def test_losses_know_geometry_and_types_only():
    wrong = [
        f"{file} imports {module}"
        for file, unit, module, target in own_imports()
        if unit in LOWEST_ONLY and LAYER[target] > 0
    ]
    assert not wrong, "\n".join(wrong)


def test_geometry_needs_torch_only():
    allowed = {"__future__", "torch", "math", "dataclasses", "typing", "collections", "v3recon"}
    files = [*(ROOT / "v3recon" / "geometry").glob("*.py"), ROOT / "v3recon" / "types.py"]
    assert len(files) > 6
    for path in files:
        assert {module.split(".")[0] for module in imports_of(path)} <= allowed, path


@pytest.mark.parametrize("library", ONE_OWNER)
def test_optional_libraries_have_one_owner(library):
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        for module in imports_of(path)
        if module.split(".")[0] == library
    }
    owner = ONE_OWNER[library]
    assert users == ({owner} if isinstance(owner, str) else owner)


def test_this_test_can_fail():
    """The walker sees what it should: a known import of each kind."""
    seen = set(own_imports())
    assert ("v3recon/decode.py", "decode", "v3recon.geometry.camera.Camera", "geometry") in seen
    assert "timm" in set(imports_of(ROOT / "v3recon/networks/regressor.py")), "lazy ones too"
