"""Writing that is killed at any file: nothing is half-written, the next run completes it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import hashlib, os, pathlib, sys
import numpy as np, torch
torch.set_num_threads(1)
import v3recon
from v3recon.reconstruct.save import OutputChoice

folder = pathlib.Path(sys.argv[1])
photo = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((28, 28), np.uint8))
photo = np.repeat(photo[..., None], 3, 2)
faces = v3recon.FaceReconstructor.from_pretrained(device="cpu", detector=None)(photo)
choice = OutputChoice(texture_size=32)

def digests(place):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in place.iterdir() if not p.name.startswith(".")}

faces.save(folder / "whole", "me", choice=choice)
expected = digests(folder / "whole")
count = len(expected)
replace, write = os.replace, pathlib.Path.write_bytes
for number in range(count):
    for moment in (("before", "after")[number % 2],):
        place = folder / f"{number}{moment}"
        child = os.fork()
        if child == 0:
            done = 0
            def dying(source, target):
                global done
                if done == number and moment == "before":
                    os.kill(os.getpid(), 9)
                replace(source, target)
                if done == number:
                    os.kill(os.getpid(), 9)
                done += 1
            os.replace = dying
            faces.save(place, "me", choice=choice)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9, (number, status)
        found = digests(place)
        assert all(expected[name] == digest for name, digest in found.items()), number
        assert "me.json" not in found or len(found) == count, "the JSON file comes last"
        faces.save(place, "me", choice=choice)
        assert digests(place) == expected
        assert not [p for p in place.iterdir() if p.name.startswith(".")], "nothing is left behind"
print(count)
"""


def test_a_face_that_is_killed_while_it_is_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 9


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from v3recon.cli.reconstruct import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk_is_one_line(tmp_path):
    """Files of more than 100 kB cannot be written: the photo is named, nothing is left behind."""
    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    Image.fromarray(np.ascontiguousarray(astronaut()[:256, 96:352])).save(tmp_path / "me.png")
    arguments = ["-i", tmp_path / "me.png", "-s", tmp_path / "out", "--texture-size", 64]
    done = subprocess.run(
        [sys.executable, "-c", FULL, "100000", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "me.png: " in done.stdout and "File too large" in done.stdout
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(path.stat().st_size <= 100_000 for path in left)
    assert not [path for path in left if path.name.startswith(".") or path.suffix == ".json"]
