from __future__ import annotations

import pytest
from synthetic_photo import make_face

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.synthetic_data.source_face import SourceFace


@pytest.fixture(scope="session")
def head() -> LinearFaceModel:
    return load_face_model()


@pytest.fixture(scope="session")
def face(head: LinearFaceModel) -> SourceFace:
    return make_face(head)
