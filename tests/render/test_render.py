"""Images of fragments."""

from __future__ import annotations

import torch
from synthetic_assets import tiny_face_model

from v3recon.geometry.camera import Camera, to_clip
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image, render_normals, render_shape
from v3recon.render.shading import gray_shading


def test_images_masks_and_normals():
    model, size = tiny_face_model(), (60, 72)
    from_crop = torch.tensor([[[0.3, 0, 2], [0, 0.27, 0]]])
    vertices = torch.cat([model.mean_shape[None], 1.1 * model.mean_shape[None]])
    normals = model.normals(vertices)
    fragments = rasterize(to_clip(vertices, Camera(), size, from_crop), model.faces, size)
    colors = model.albedo(torch.zeros(1, model.sizes[2]))
    image, mask = render_image(colors, fragments, model.faces)
    assert image.shape == (2, 3, *size) and mask.shape == (2, 1, *size)
    assert mask.unique().tolist() == [0.0, 1.0]
    assert (image * (1 - mask) == 0).all()
    torch.testing.assert_close(
        image.permute(0, 2, 3, 1), interpolate(colors, fragments, model.faces)
    )
    assert mask[1].sum() > mask[0].sum()  # a larger face covers more

    shape, _ = render_shape(normals, fragments, model.faces)
    gray = interpolate(gray_shading(normals), fragments, model.faces).permute(0, 3, 1, 2)
    torch.testing.assert_close(shape, gray)

    unit, mask = render_normals(normals, fragments, model.faces)
    torch.testing.assert_close(unit.norm(dim=1, keepdim=True), mask)
    assert unit[:, 2][mask[:, 0] > 0].mean() > 0.5  # the face looks at the camera
