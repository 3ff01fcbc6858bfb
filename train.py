"""`python train.py` is `ssd train`."""

import sys

from ssd_tf.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
