"""`python part_masks --help`: the same as `v3recon part-masks`."""

import sys

from v3recon.cli.part_masks import main

if __name__ == "__main__":
    sys.exit(main())
