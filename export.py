"""`python export.py` is `ssd export`."""

import sys

from ssd_tf.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
