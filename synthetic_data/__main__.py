"""`python synthetic_data --help`: the same as `v3recon synthesize`."""

import sys

from v3recon.cli.synthesize import main

if __name__ == "__main__":
    sys.exit(main())
