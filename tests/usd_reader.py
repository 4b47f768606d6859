"""What a .usdz file shows, evaluated by the library's own code; for tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pxr", reason="usd-core is not installed")
from pxr import Gf, Sdr, Tf, Usd, UsdGeom, UsdSkel, UsdUtils


def open_stage(path: Path) -> Usd.Stage:
    """An editable copy of the file's stage."""
    return Usd.Stage.Open(Usd.Stage.Open(str(path)).Flatten())


def meshes_of(stage: Usd.Stage) -> dict[str, UsdGeom.Mesh]:
    """Every mesh by its name, in the order of the file."""
    found = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    return {mesh.GetPrim().GetName(): mesh for mesh in found}


def expression_of(stage: Usd.Stage) -> UsdSkel.Animation:
    """The only animation."""
    (found,) = (prim for prim in stage.Traverse() if prim.IsA(UsdSkel.Animation))
    return UsdSkel.Animation(found)


def shown_corners(path: Path) -> np.ndarray:
    """[F, 3, 3] corners of all meshes' triangles with blend shapes and skeleton at the file's."""
    stage = open_stage(path)
    assert UsdSkel.BakeSkinning(UsdSkel.Root(stage.GetDefaultPrim()), Gf.Interval(0, 0))
    corners = []
    for mesh in meshes_of(stage).values():
        points = np.array(mesh.GetPointsAttr().Get(0))
        corners.append(points[np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)])
    return np.concatenate(corners)


def complaints(path: Path) -> list[str]:
    """What the library's checker says against a file, with ARKit's rules where it has them."""
    if not hasattr(UsdUtils, "ComplianceChecker"):  # its successor
        from pxr import UsdValidation

        validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
        found = UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
        return [f"{one.GetName()}: {one.GetMessage()}" for one in found]
    # Wheels with this checker have no definitions of shaders; the first question for one raises.
    with suppress(Tf.ErrorException):
        Sdr.Registry().GetShaderNodeByIdentifier("UsdPreviewSurface")
    checker = UsdUtils.ComplianceChecker(arkit=True)
    checker.CheckCompliance(str(path))
    found = [*checker.GetErrors(), *checker.GetFailedChecks(), *checker.GetWarnings()]
    return [one for one in found if "invalid shader node" not in one]
