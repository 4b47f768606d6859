"""Single-photo 3D face reconstruction guided by the segmentation of facial parts.

```
import v3recon

model = v3recon.FaceReconstructor.from_pretrained()
faces = model("photo.jpg")
faces.landmarks_68, faces.vertices, faces.parts(), faces.texture()
faces.save("out")
```

The names below are imported when they are used first, so that `import v3recon` takes no time.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from v3recon.decode import decode as decode
    from v3recon.decode import render as render
    from v3recon.face_models.linear_face_model import PART_NAMES as PART_NAMES
    from v3recon.face_models.load import load_face_model as load_face_model
    from v3recon.fitting.fit_photo import fit as fit
    from v3recon.losses.part_distribution import part_distribution_loss as part_distribution_loss
    from v3recon.reconstruct.faces import Face as Face
    from v3recon.reconstruct.faces import Faces as Faces
    from v3recon.reconstruct.reconstructor import FaceReconstructor as FaceReconstructor
    from v3recon.reconstruct.segment import segment as segment
    from v3recon.reconstruct.texture import extract_texture as extract_texture
    from v3recon.render.rasterize import rasterize as rasterize
    from v3recon.types import FaceCoeffs as FaceCoeffs

__version__ = "0.1.0"

_HOME = {
    "Face": "v3recon.reconstruct.faces",
    "FaceCoeffs": "v3recon.types",
    "FaceReconstructor": "v3recon.reconstruct.reconstructor",
    "Faces": "v3recon.reconstruct.faces",
    "PART_NAMES": "v3recon.face_models.linear_face_model",
    "decode": "v3recon.decode",
    "extract_texture": "v3recon.reconstruct.texture",
    "fit": "v3recon.fitting.fit_photo",
    "load_face_model": "v3recon.face_models.load",
    "part_distribution_loss": "v3recon.losses.part_distribution",
    "rasterize": "v3recon.render.rasterize",
    "render": "v3recon.decode",
    "segment": "v3recon.reconstruct.segment",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'v3recon' has no attribute {name!r}")
    if name == "FaceReconstructor" and importlib.util.find_spec("torch") is None:
        # Exported networks run without torch: `from_pretrained(FOLDER, backend="onnx")`.
        return importlib.import_module("v3recon.light.reconstructor").OnnxReconstructor
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


class _FrontPage(ModuleType):
    """`v3recon.decode` and `v3recon.render` are functions though rooms bear the same names.

    Python's import of a submodule also sets the parent's attribute of that name, which would
    replace the function from then on; `from v3recon.decode import …` does not need it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontPage
