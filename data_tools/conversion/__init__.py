"""What all converters share, from labels of any format to shards.

command has the flags and runs a converter; convert has the order of the steps.

Plan:    plan (the images), classes, splitting, findings (images without labels, and so on).
Check:   image_checks, box_checks.
Write:   shard_writer (a record, a shard), run by pool (processes; preloaded is what they import)
         or beam; output_folder (lock, errors); publish (file names, dataset.json).
Report:  counts, duplicates, report.
"""
