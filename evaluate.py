"""`python evaluate.py` is `ssd evaluate`."""

import sys

from ssd_tf.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
