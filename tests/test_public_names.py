"""`v3recon.X` for every public name; removing one fails here first."""

from __future__ import annotations

import subprocess
import sys

import pytest

import v3recon

NAMES = """
Face FaceCoeffs FaceReconstructor Faces PART_NAMES decode extract_texture fit load_face_model
part_distribution_loss rasterize render segment
""".split()


def test_the_list_of_public_names():
    assert v3recon.__all__ == sorted(NAMES)
    assert set(NAMES) < set(dir(v3recon))
    with pytest.raises(AttributeError, match="reconstruction"):
        v3recon.reconstruction  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_what_it_says(name):
    found = getattr(v3recon, name)
    assert isinstance(found, tuple) or (callable(found) and found.__name__ == name)


def test_functions_that_share_a_name_with_a_room_stay_functions():
    code = (
        "import v3recon.decode, v3recon.render.rasterize, v3recon; "
        "from v3recon import decode, render; from v3recon.decode import posed_normals; "
        "assert callable(v3recon.decode) and callable(v3recon.render), v3recon.render; "
        "assert decode is v3recon.decode and render is v3recon.render"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_loads_no_torch():
    code = "import sys, v3recon; v3recon.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
