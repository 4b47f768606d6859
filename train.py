"""Train a face regressor by a recipe: `python train.py RECIPE --photos PHOTOS --out RUN`."""

import sys

from v3recon.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
