"""The CUDA rasteriser: its refusal without the library, and its twin on a GPU."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from synthetic_assets import tiny_face_model

from v3recon.geometry.camera import Camera, to_clip
from v3recon.render.rasterize import rasterize


def test_missing_library_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", None)
    with pytest.raises(ValueError, match="pip install diffrp-nvdiffrast"):
        rasterize(torch.rand(1, 3, 4), torch.tensor([[0, 1, 2]]), (4, 4), "nvdiffrast")


@pytest.mark.needs_cuda
@pytest.mark.parametrize("rasterizer", ["torch", "nvdiffrast"])
def test_gpu_equals_cpu(rasterizer):
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    if rasterizer == "nvdiffrast" and importlib.util.find_spec("nvdiffrast") is None:
        pytest.skip("needs nvdiffrast")
    model = tiny_face_model()
    clip = to_clip(model.mean_shape[None], Camera(), (200, 232)).requires_grad_()
    weights = torch.rand(1, 200, 232, 3, generator=torch.Generator().manual_seed(0))
    on_cpu = rasterize(clip, model.faces, (200, 232), "cpu")
    on_gpu = rasterize(clip.cuda(), model.faces.cuda(), (200, 232), rasterizer)
    same = on_cpu.face_id == on_gpu.face_id.cpu()
    # nvdiffrast snaps vertices to a fraction of a pixel: pixels beside an edge may differ.
    assert same.float().mean() > (0.98 if rasterizer == "nvdiffrast" else 0.99999)
    torch.testing.assert_close(on_gpu.bary.cpu()[same], on_cpu.bary[same], atol=1e-4, rtol=0)
    torch.testing.assert_close(on_gpu.depth.cpu()[same], on_cpu.depth[same], atol=1e-4, rtol=0)
    kept = weights * same[..., None]
    (cpu_gradient,) = torch.autograd.grad((on_cpu.bary * kept).sum(), clip)
    (gpu_gradient,) = torch.autograd.grad((on_gpu.bary.cpu() * kept).sum(), clip)
    torch.testing.assert_close(gpu_gradient, cpu_gradient, atol=1e-2, rtol=1e-3)
