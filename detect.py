"""`python detect.py` is `ssd detect`."""

import sys

from ssd_tf.commands.detect import main

if __name__ == "__main__":
    sys.exit(main())
