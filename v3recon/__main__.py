"""`python -m v3recon`: the console command."""

import sys

from v3recon.cli import main

if __name__ == "__main__":
    sys.exit(main())
