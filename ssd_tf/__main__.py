"""`python -m ssd_tf` is the `ssd` program."""

import sys

from ssd_tf.cli import main

if __name__ == "__main__":
    sys.exit(main())
