"""SavedModel with the output names of the TF Object Detection API.

Shapes: `B` batch, `K` detections kept, `A` default boxes, `C` foreground classes.
"""

import tensorflow as tf

from ssd_tf import files, pixels
from ssd_tf.data.decoding import decode_image
from ssd_tf.data.images import resize
from ssd_tf.inference.detector import make_postprocessor
from ssd_tf.inference.exported import write_gray_range
from ssd_tf.inference.thresholds import THRESHOLDS_FILE
from ssd_tf.models.folding import fold_batch_norm, freeze
from ssd_tf.weights.label_files import format_names


class Server(tf.Module):
    """What is saved: three signatures, with the weights as constants of a function they share."""

    def __init__(self, config, network, gray_range=pixels.FULL_RANGE):
        super().__init__()
        self._gray_range = gray_range
        self._input_hw = config.model.input_hw
        self._postprocessor = make_postprocessor(config, network.default_boxes)
        images = tf.TensorSpec([None, *self._input_hw, 3], tf.float32, "image")
        # Traced once: three traces would have three copies of the weights.
        predict = freeze(fold_batch_norm(network.model))
        self._predict = tf.function(predict, autograph=False).get_concrete_function(images)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "input_tensor")],
        autograph=False,
    )
    def __call__(self, input_tensor):
        """uint8 [B, H, W, 3] of any size -> detections."""
        images = resize(input_tensor, self._input_hw)
        batch_size = tf.shape(input_tensor)[0]
        size_hw = tf.cast(tf.shape(input_tensor)[1:3], tf.float32)
        return _named_outputs(self._detect(images), tf.tile(size_hw[None], [batch_size, 1]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def serve_bytes(self, image_bytes):
        """Encoded images [B] string, each of its own size -> detections, and status [B] int32.

        Images are turned as EXIF says, and boxes are those of the turned image. One that cannot be
        decoded, or has too many pixels, has status 1 and no detections; the others have status 0.
        """
        images, sizes_hw, is_read = self._read_all(image_bytes)
        detections = self._detect(images)
        shown = {
            name: tf.where(_like(is_read, value), value, tf.zeros_like(value))
            for name, value in detections.items()
        }
        status = 1 - tf.cast(is_read, tf.int32)
        return {**_named_outputs(shown, sizes_hw), "status": status}

    def raw(self, image):
        """Predictions without post-processing.

        float32 [B, H, W, 3] RGB in 0..255, at input_hw -> offsets [B, A, 4], logits [B, A, C + 1].
        """
        return self._predict(image)

    def _detect(self, images):
        return self._postprocessor(self._predict(images))

    def _read_all(self, image_bytes):
        """Images [B, *input_hw, 3], their own sizes [B, 2], and which could be read [B] bool.

        Operations cannot catch an error; a tf.data pipeline, which may be part of a graph, can.
        """

        @tf.autograph.experimental.do_not_convert
        def read(index, encoded):
            image = decode_image(encoded, self._gray_range)
            return index, resize(image, self._input_hw), tf.shape(image)[:2]

        # Behind the last, so that something remains when no image can be read.
        batch_size = tf.size(image_bytes, tf.int64)
        nothing = (batch_size, tf.zeros([*self._input_hw, 3]), tf.zeros([2], tf.int32))
        numbered = tf.data.Dataset.from_tensor_slices((tf.range(batch_size), image_bytes))
        readable = numbered.map(read, tf.data.AUTOTUNE).ignore_errors()
        readable = readable.concatenate(tf.data.Dataset.from_tensors(nothing))
        index, images, sizes_hw = readable.batch(batch_size + 1).get_single_element()

        def spread(values):
            shape = tf.concat([[batch_size + 1], tf.shape(values, tf.int64)[1:]], 0)
            return tf.scatter_nd(index[:, None], values, shape)[:-1]

        is_read = spread(tf.ones_like(index)) > 0
        images = tf.ensure_shape(spread(images), [None, *self._input_hw, 3])
        return images, tf.cast(spread(sizes_hw), tf.float32), is_read


def export_saved_model(config, network, names, path, gray_range=pixels.FULL_RANGE, thresholds=None):
    """Write the SavedModel folder atomically; class names go into assets.extra/labels.txt.

    gray_range: of the training data; serving_bytes reads PNGs of 16 bits with it. thresholds: go
    into assets.extra/thresholds.json, unless they are None.
    """
    server = Server(config, network, gray_range)
    with files.new_folder(path, replace=True) as folder:
        tf.saved_model.save(server, str(folder), signatures=_signatures(server, config))
        extra = folder / "assets.extra"
        extra.mkdir()
        files.write_text(extra / "labels.txt", format_names(names))
        if thresholds:
            files.write_json(extra / THRESHOLDS_FILE, thresholds.to_json())
        write_gray_range(folder, gray_range)


def _signatures(server, config):
    """Functions, which saving traces; it would trace those again that have a trace already."""
    resized = tf.TensorSpec([None, *config.model.input_hw, 3], tf.float32, "image")
    return {
        "serving_default": server.__call__,
        "serving_bytes": server.serve_bytes,
        "raw": tf.function(server.raw, input_signature=[resized], autograph=False),
    }


def _like(mask, value):
    """A mask [B] with as many dimensions as a value [B, ...]."""
    return tf.reshape(mask, [-1, *[1] * (len(value.shape) - 1)])


def _named_outputs(detections, sizes_hw):
    """Detections, image sizes [B, 2] -> outputs of the TF Object Detection API, and pixel boxes."""
    scale = tf.tile(sizes_hw, [1, 2])[:, None]
    return {
        "detection_boxes": detections["boxes"],
        "detection_boxes_pixels": detections["boxes"] * scale,
        "detection_scores": detections["scores"],
        "detection_classes": tf.cast(detections["labels"], tf.float32),
        "num_detections": tf.cast(detections["count"], tf.float32),
    }
