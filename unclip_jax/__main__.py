"""`python -m unclip_jax` is `unclip`."""

import sys

from unclip_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
