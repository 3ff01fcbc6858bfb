"""Batch norm by TensorFlow's fused operation, in training and in evaluation.

Keras 3's own layer runs as separate moments, multiplications and additions on TensorFlow, and casts
bfloat16 and float16 up to float32.
"""

import keras
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

_FUSED_DTYPES = ("float32", "bfloat16", "float16")


def all_reduce(operation, values):
    """The sum or mean of each value over all replicas, inside strategy.run.

    operation: "sum" or "mean". values: tensors or variables, or a structure of them.
    """
    # A strategy with one replica per worker cannot reduce what a variable gives: it has no device.
    tensors = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_reduce(operation, tensors)


@keras.saving.register_keras_serializable("ssd_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, with its arguments, variables and names, but fused for images.

    Inputs [B, H, W, channels] keep their dtype; statistics and parameters are float32.
    Differs from Keras: the moving variance averages the unbiased variance of the batches, with
    N - 1, as the fused operation and PyTorch do; the output is normalised by the biased one.
    synchronized: the statistics are those of all replicas together.
    """

    def call(self, inputs, training=None, mask=None):
        trains = bool(training) and self.trainable
        channels_last = self.axis in (-1, len(inputs.shape) - 1)
        if mask is not None or self.renorm or not channels_last:
            return super().call(inputs, training=training, mask=mask)
        is_alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
        is_fusable = len(inputs.shape) == 4 and inputs.dtype in _FUSED_DTYPES
        if not trains and tensorflow_config.is_op_determinism_enabled():
            is_fusable = False  # GPUs have no deterministic gradient of it
        if is_fusable and (is_alone or not (trains and self.synchronized)):
            return self._fused(inputs, trains)
        if trains:
            return self._normalize_by_batch(inputs)
        return super().call(inputs, training=False)

    def _fused(self, inputs, trains):
        scale, offset = self._parameters()
        factor = 1.0 - self.momentum if trains else 1.0
        # With a factor of 1 there is nothing to average with, and the operation rejects it.
        is_averaged = factor < 1.0 or not trains
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=self.moving_mean.value if is_averaged else [],
            variance=self.moving_variance.value if is_averaged else [],
            epsilon=self.epsilon,
            exponential_avg_factor=factor,
            is_training=trains,
        )
        if trains:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs

    def _normalize_by_batch(self, inputs):
        """Training without the fused operation, over all replicas if synchronized."""
        scale, offset = self._parameters()
        x = tf.cast(inputs, scale.dtype)
        axes = list(range(len(x.shape) - 1))
        mean = self._reduce_mean(tf.reduce_mean(x, axes))
        deviation = x - mean
        variance = self._reduce_mean(tf.reduce_mean(tf.square(deviation), axes))
        count = tf.cast(tf.size(x) / tf.size(mean), x.dtype) * self._num_replicas()
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, unbiased)
        outputs = deviation * tf.math.rsqrt(variance + self.epsilon) * scale + offset
        return tf.cast(outputs, inputs.dtype)

    def _parameters(self):
        """gamma and beta; constants where there is none."""
        mean = self.moving_mean.value
        scale = self.gamma.value if self.scale else tf.ones_like(mean)
        offset = self.beta.value if self.center else tf.zeros_like(mean)
        return tf.convert_to_tensor(scale), tf.convert_to_tensor(offset)

    def _num_replicas(self):
        return tf.distribute.get_strategy().num_replicas_in_sync if self.synchronized else 1

    def _reduce_mean(self, value):
        """The mean over the replicas, which have equal parts of the batch."""
        if self._num_replicas() == 1:
            return value
        return all_reduce("mean", value)

    def _move(self, variable, value):
        moving = variable.value
        variable.assign(moving + (1.0 - self.momentum) * (tf.stop_gradient(value) - moving))
