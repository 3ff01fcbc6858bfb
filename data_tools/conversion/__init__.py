"""From labels of any format to shards: the part that all converters share.

convert has the order of the steps, config the flags and the record of them.

Labels:  survey (read once, judged as a whole), classes, splitting.
Images:  image_checks, box_checks.
Records: shard_writer (a record, a shard), run by pool (processes or Beam; preloaded is what the
         processes import).
Results: counts, report, output (lock, file names, dataset.json).
"""
