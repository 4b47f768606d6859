"""Coefficients to vertices, image and loss, and back: one face fitted to its own photo.

    python examples/05_differentiable.py [PHOTO]

Every step is differentiable: `decode` in all coefficients, `render` in colors and places inside
of the face, the part distribution loss in the outlines of the parts.
"""

import sys
from pathlib import Path

import torch

import v3recon

STEPS = 10


def main(path: str) -> None:
    """Lower the photometric error and the landmarks' distance from the network's estimate."""
    reconstructor = v3recon.FaceReconstructor.from_pretrained(device="cpu")
    (face, *_) = reconstructor(path)
    model, camera = face.model, face.camera

    # The photo in the frame of the crop: what `render` draws into.
    size = camera.image_size
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = face.crop.from_crop(torch.stack([x, y], -1).reshape(-1, 2).float())
    photo = torch.from_numpy(face.image).permute(2, 0, 1)[None].float() / 255
    extent = torch.tensor([face.image_size[1], face.image_size[0]])
    grid = ((2 * pixels + 1) / extent - 1).reshape(1, size, size, 2)
    target = torch.nn.functional.grid_sample(photo, grid, align_corners=False)
    points = face.crop.to_crop(face.landmarks_68)[None]

    packed = face.coeffs.to_tensor().clone().requires_grad_()
    optimizer = torch.optim.Adam([packed], lr=5e-3)
    for step in range(STEPS + 1):
        coeffs = v3recon.FaceCoeffs.from_tensor(packed, model.sizes)
        decoded = v3recon.decode(coeffs, model, camera)
        image, mask = v3recon.render(coeffs, model, camera, decoded=decoded)
        photometric = (mask * (image - target).abs()).sum() / mask.sum()
        moved = (decoded.points_2d[:, model.landmarks_68] - points).norm(dim=2).mean()
        loss = photometric + 1e-2 * moved + 1e-4 * (coeffs.id**2).sum()
        if step % 5 == 0:
            print(f"step {step:2d}: color {photometric:.4f}, landmarks moved {moved:.2f} px")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    default = Path(__file__).parent / "astronaut.jpg"
    main(sys.argv[1] if len(sys.argv) > 1 else str(default))
