"""Train a regressor: `python train.py --help`; the loop is `v3recon/training/run.py`."""

from __future__ import annotations

import sys

from v3recon.training.run import main

if __name__ == "__main__":
    sys.exit(main())
