"""All faces of a photo, and every file of each.

python examples/01_reconstruct.py [PHOTO] [FOLDER]
"""

import sys
from pathlib import Path

import v3recon

photo = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "astronaut.jpg"
folder = sys.argv[2] if len(sys.argv) > 2 else "results"

model = v3recon.FaceReconstructor.from_pretrained()
faces = model(photo)
print(f"{len(faces)} faces in {photo}")
for face in faces:
    pitch, yaw, roll = face.angle_degrees.tolist()
    print(f"pitch {pitch:.0f}, yaw {yaw:.0f}, roll {roll:.0f} degrees; quality {face.quality:.2f}")
    print(f"nose tip at {face.landmarks_68[30].round().tolist()} of {face.image_size[::-1]} pixels")
for path in faces.save(folder):
    print(path)
