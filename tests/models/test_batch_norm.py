"""Our batch norm against Keras', and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import config as tensorflow_config

from ssd_tf.models.batch_norm import BatchNormalization


def make_layers(shape, dtype="float32", **options):
    """Our layer and Keras' on inputs of this shape, with the same parameters and statistics."""
    pair = [
        kind(dtype=dtype, name="bn", **options)
        for kind in (BatchNormalization, layers.BatchNormalization)
    ]
    random = np.random.default_rng(1)
    values = None
    for layer in pair:
        layer.build(shape)
        if values is None:
            values = [random.uniform(0.5, 1.5, weight.shape) for weight in layer.weights]
        layer.set_weights(values)
    return pair


def make_inputs(shape, dtype="float32"):
    values = np.random.default_rng(0).normal(3.0, 2.0, shape)
    return tf.constant(values.astype(np.float32), dtype)


def outputs_and_gradients(layer, inputs, training):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        target = tf.cast(tf.reshape(tf.range(tf.size(outputs)), outputs.shape), outputs.dtype)
        loss = tf.reduce_sum(tf.sin(target) * outputs)
    variables = [layer.gamma.value, layer.beta.value]
    return [outputs, *tape.gradient(loss, [inputs, *variables])]


SHAPES = [(1, 1, 1, 3), (2, 1, 1, 3), (4, 5, 7, 3), (2, 6, 3, 16)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_keras(shape, training):
    ours, theirs = make_layers(shape)
    inputs = make_inputs(shape)
    found = outputs_and_gradients(ours, inputs, training)
    expected = outputs_and_gradients(theirs, inputs, training)
    for value, expected_value in zip(found, expected, strict=True):
        assert np.isfinite(value).all()
        scale = max(float(tf.reduce_max(tf.abs(expected_value))), 1.0)
        np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=1e-5 * scale)


def test_frozen_layers_use_and_keep_their_statistics():
    ours, theirs = make_layers((4, 5, 7, 3))
    inputs = make_inputs((4, 5, 7, 3))
    ours.trainable = False
    before = [weight.numpy() for weight in ours.weights]
    found = outputs_and_gradients(ours, inputs, training=True)
    expected = outputs_and_gradients(theirs, inputs, training=False)
    for value, expected_value in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=1e-4)
    for weight, value in zip(ours.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize(
    ("momentum", "mean", "variance"),
    # The batch 1, 2, 6 has a mean of 3, a biased variance of 14/3 and an unbiased one of 7.
    [(0.75, 0.75, 0.75 + 1.75), (0.0, 3.0, 7.0), (1.0, 0.0, 1.0)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moving_statistics(momentum, mean, variance, dtype):
    layer = BatchNormalization(momentum=momentum, epsilon=0.0, dtype=dtype)
    outputs = layer(tf.constant([1.0, 2.0, 6.0], dtype)[None, None, :, None], training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [mean], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [variance], rtol=1e-6)
    # The output has the biased one: (1 - 3) / sqrt(14 / 3) and so on.
    expected = np.array([-2, -1, 3]) / (14 / 3) ** 0.5
    np.testing.assert_allclose(tf.reshape(outputs, [-1]), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_keeps_float32_statistics(dtype, training):
    ours, theirs = make_layers((4, 5, 7, 3), dtype)
    inputs = make_inputs((4, 5, 7, 3), dtype.removeprefix("mixed_"))
    outputs = ours(inputs, training=training)
    assert outputs.dtype == inputs.dtype
    assert {weight.dtype for weight in ours.weights} == {"float32"}
    expected = theirs(inputs, training=training)
    np.testing.assert_allclose(
        tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32), atol=0.05
    )
    np.testing.assert_allclose(ours.moving_mean.numpy(), theirs.moving_mean.numpy(), rtol=1e-3)


def test_the_graph_has_the_fused_operation_and_no_moments():
    layer, _ = make_layers((2, 5, 7, 3))
    for training in (False, True):
        function = tf.function(lambda x, t=training: layer(x, training=t))
        graph = function.get_concrete_function(tf.TensorSpec((2, 5, 7, 3))).graph
        kinds = [operation.type for operation in graph.get_operations()]
        assert kinds.count("FusedBatchNormV3") == 1
        assert not {"Mean", "Rsqrt", "SquaredDifference", "Mul"} & set(kinds)


@pytest.mark.parametrize("training", [False, True])
def test_inputs_that_cannot_be_fused(training):
    inputs = make_inputs((6, 3))
    ours, theirs = make_layers((6, 3))
    np.testing.assert_allclose(
        ours(inputs, training=training), theirs(inputs, training=training), atol=1e-5
    )
    first, second = make_layers((2, 3, 5, 7), axis=1)
    images = make_inputs((2, 3, 5, 7))
    np.testing.assert_allclose(
        first(images, training=training), second(images, training=training), atol=1e-5
    )


def test_without_scale_and_offset():
    ours, theirs = make_layers((4, 5, 7, 3), scale=False, center=False)
    inputs = make_inputs((4, 5, 7, 3))
    for training in (False, True):
        found = ours(inputs, training=training)
        np.testing.assert_allclose(found, theirs(inputs, training=training), atol=1e-5)


def test_variables_and_weights_files_are_keras(tmp_path):
    models = []
    for kind in (BatchNormalization, layers.BatchNormalization):
        image = keras.Input((4, 6, 3))
        models.append(keras.Model(image, kind(name="bn")(image)))
    ours, theirs = models
    assert [v.path for v in ours.variables] == [v.path for v in theirs.variables]
    values = [np.arange(3.0) + index for index in range(4)]
    ours.get_layer("bn").set_weights(values)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_array_equal(theirs.get_layer("bn").get_weights(), values)


def test_the_layer_comes_back_from_its_config():
    layer = BatchNormalization(momentum=0.7, epsilon=1e-4, synchronized=True, name="bn")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is BatchNormalization
    assert (again.momentum, again.epsilon, again.synchronized) == (0.7, 1e-4, True)


@pytest.fixture
def deterministic_operations():
    tf.config.experimental.enable_op_determinism()
    yield
    tensorflow_config.disable_op_determinism()


def operations_of_gradient(layer, training):
    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
        return outputs, tape.gradient(outputs, images)

    concrete = gradient.get_concrete_function(tf.TensorSpec([2, 3, 5, 4]))
    return gradient, {operation.type for operation in concrete.graph.get_operations()}


@pytest.mark.usefixtures("deterministic_operations")
def test_frozen_and_deterministic_it_has_no_fused_gradient():
    """TensorFlow has no deterministic one for GPUs."""
    layer = BatchNormalization()
    layer.build((None, 3, 5, 4))
    layer.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    gradient, operations = operations_of_gradient(layer, training=False)
    assert "FusedBatchNormGradV3" not in operations
    assert "FusedBatchNormGradV3" in operations_of_gradient(layer, training=True)[1]
    outputs, _ = gradient(tf.ones([2, 3, 5, 4]))
    # (1 - mean) / sqrt(1 + .001)
    expected = np.broadcast_to([0.0, -0.99950, -1.99900, -2.99850], (2, 3, 5, 4))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
