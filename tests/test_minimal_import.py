"""`import v3recon` is quiet, light and needs no optional library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "timm torchvision cv2 numba facenet_pytorch retinaface nvdiffrast matplotlib scipy mediapipe "
    "tyro PIL"
).split()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_import_gives_no_warning_and_loads_nothing_heavy():
    code = f"import sys, v3recon; print([name for name in {HEAVY} if name in sys.modules])"
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]" and result.stderr == ""


@pytest.mark.parametrize(
    "module",
    [
        "v3recon.types",
        "v3recon.decode",
        "v3recon.geometry.camera",
        "v3recon.face_models.load",
        "v3recon.networks.regressor",
        "v3recon.render.rasterize",
        "v3recon.losses.total",
        "v3recon.detection.detect",
    ],
)
def test_optional_libraries_are_not_needed_to_import(module):
    optional = ["nvdiffrast", "retinaface", "facenet_pytorch", "mediapipe"]
    block = "import sys; " + "".join(f"sys.modules[{name!r}] = None; " for name in optional)
    result = python(f"{block}import {module}")
    assert result.returncode == 0, result.stderr
