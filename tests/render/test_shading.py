"""Grey shading against the golden values and known directions."""

from __future__ import annotations

import torch

from v3recon.render.shading import gray_shading


def test_golden(golden):
    expected = golden["gray_shading"]
    if expected.max() > 2:
        expected = expected / 255
    result = gray_shading(golden["normals_rotated"])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_known_directions():
    normals = torch.tensor([[0.0, 0, 1], [0, 0, -1]])
    # Facing the camera: four lights at 1 / sqrt(3), one at 1.
    front = 0.78 * 1.7 * (4 / 3**0.5 + 1) / 5
    expected = torch.tensor([[front] * 3, [0.0] * 3])
    torch.testing.assert_close(gray_shading(normals), expected)
