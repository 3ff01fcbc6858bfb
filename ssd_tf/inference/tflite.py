"""Run TFLite detectors, ours or foreign."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ssd_tf.data.images import resize


def make_runner(path):
    """A .tflite file with a detector's four outputs -> a function that runs it.

    The function takes a list of uint8 images [H, W, 3] and returns a list of {"boxes", "scores",
    "labels"}. Raises ValueError when the file has other outputs.
    """
    # With several threads the operator's NMS skips the class whose index equals their number:
    # tensorflow/tensorflow#56058, seen with LiteRT 2.3. One thread is right for all classes.
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    if len(outputs) != 4 or len(entry["shape"]) != 4:
        raise ValueError(
            f"{path}: expected a detector's four outputs (boxes, classes, scores, count), "
            f"got {len(outputs)}"
        )

    def run_one(image):
        batch = resize(image, entry["shape"][1:3]).numpy()[None]
        if np.issubdtype(entry["dtype"], np.integer):
            batch = np.clip(np.round(batch), 0, 255)
        interpreter.set_tensor(entry["index"], batch.astype(entry["dtype"]))
        interpreter.invoke()
        boxes, classes, scores, count = (
            interpreter.get_tensor(output["index"])[0] for output in outputs
        )
        is_real = np.arange(len(scores)) < int(count)
        return {
            "boxes": np.clip(boxes[is_real], 0, 1),
            "scores": scores[is_real],
            "labels": classes[is_real].astype(np.int32) + 1,
        }

    return lambda images: [run_one(image) for image in images]
