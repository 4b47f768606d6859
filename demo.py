"""Reconstruct the faces of photos in 3D: `python demo.py -i PHOTOS -s RESULTS` (`--help`)."""

import sys

from v3recon.cli.reconstruct import main

if __name__ == "__main__":
    sys.exit(main())
