"""The Examples of a split, for evaluation."""

import tensorflow as tf

from ssd_tf.data import bad_records, dataset_json, records, shards
from ssd_tf.data.records import decode_stored


def read_examples(data_dir, split, skipped=()) -> tf.data.Dataset:
    """The Examples of a split, once, in file order, with `image` decoded to uint8 [H, W, 3].

    skipped: RecordIds to leave out, from `bad_records.scan_bad_records`.
    Raises ValueError or FileNotFoundError like `build_dataset`. Run its iterator inside
    `bad_records.explain_record_errors`.
    """
    dataset_info = dataset_json.read_dataset(data_dir)
    encoded = shards.records_in_file_order(list(shards.count_split(dataset_info, split)), skipped)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized):
        example = bad_records.check_example(
            records.parse_example(serialized), len(dataset_info.classes)
        )
        return {**example, "image": decode_stored(example["image"])}

    return encoded.map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
