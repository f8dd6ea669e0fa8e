"""The four nets: their sizes by hand, their outputs against NumPy and SciPy, and what each keyword promises."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_architectures import bottleneck, cnn, conv_student, mlp
from mimic_keras_architectures.chain import Chain, dropout_rates
from scipy.signal import correlate2d

from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.components import bind
from mimic_keras.training.models import count_multiply_adds

# One small net of each kind: (function, keywords of its own).
SMALL = {
    mlp: {"hidden_units": [12, 9]},
    bottleneck: {"linear_units": 5, "hidden_units": [12]},
    conv_student: {"filters": [4], "linear_units": 5, "hidden_units": [12]},
    cnn: {"filters": [[3, 4], 5], "hidden_units": [12]},
}
IMAGE = (8, 8, 2)
every_net = pytest.mark.parametrize("net", SMALL, ids=lambda net: net.__name__)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def small(net, **keywords):
    return net(IMAGE, 3, **{**SMALL[net], **keywords})


def images(count=4, shape=IMAGE, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def trainable(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def forward(model, inputs, scale=1.0):
    """The net's logits from its weights alone, in float64: convolutions, pooling and matrix products of SciPy."""
    x = inputs.astype(np.float64) * scale
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = (weights.numpy().astype(np.float64) for weights in layer.weights)
            x = np.stack(
                [
                    [
                        sum(correlate2d(image[..., i], kernel[..., i, o], "same") for i in range(image.shape[-1]))
                        for o in range(kernel.shape[-1])
                    ]
                    for image in x
                ]
            ).transpose(0, 2, 3, 1)
            x = x + bias
        elif isinstance(layer, keras.layers.MaxPooling2D):
            count, height, width, channels = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2, channels)
            x = x.max((2, 4))
        elif isinstance(layer, keras.layers.Flatten):
            x = x.reshape(len(x), -1)
        elif isinstance(layer, keras.layers.Dense):
            x = x @ layer.kernel.numpy().astype(np.float64)
            x = x + layer.bias.numpy() if layer.use_bias else x
        elif isinstance(layer, keras.layers.Activation):
            x = np.maximum(x, 0)
        else:
            assert isinstance(layer, keras.layers.InputLayer | keras.layers.Rescaling), layer
    return x


@every_net
def test_logits_equal_those_of_scipy_from_the_same_weights(net):
    model = small(net)
    for weight in model.weights:  # biases start at 0: give them something to do
        if "bias" in weight.path:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))

    np.testing.assert_allclose(model(images()), forward(model, images()), rtol=1e-4, atol=1e-5)


def test_pooling_of_an_odd_image_drops_the_last_row_and_column():
    model, inputs = cnn((7, 9, 1), 2, filters=[3], hidden_units=[4]), images(shape=(7, 9, 1))

    np.testing.assert_allclose(model(inputs), forward(model, inputs), rtol=1e-4, atol=1e-5)


def test_size_of_ba_and_caruanas_250l_8k():
    model = bottleneck((15, 123), 183, linear_units=250, hidden_units=[8000])

    assert trainable(model) == model.count_params() == 1845 * 250 + 250 * 8000 + 8000 + 8000 * 183 + 183 == 3_933_433


def test_size_of_ba_and_caruanas_three_layers_of_2000():
    model = mlp((15, 123), 183, hidden_units=[2000, 2000, 2000], dropout=0.5)

    assert trainable(model) == 1845 * 2000 + 2000 + 2 * (2000 * 2000 + 2000) + 2000 * 183 + 183


def test_size_of_ba_and_caruanas_128c_p_1200l_30k():
    model = conv_student((32, 32, 3), 10, filters=[128], linear_units=1200, hidden_units=[30000])

    convolution = 5 * 5 * 3 * 128 + 128
    linear = 16 * 16 * 128 * 1200
    hidden = 1200 * 30000 + 30000
    assert trainable(model) == convolution + linear + hidden + 30000 * 10 + 10


def test_size_of_urbans_76c2_mp_126c2_mp_148c4_mp_1200fc2():
    model = cnn((32, 32, 3), 10, filters=[[76, 76], [126, 126], [148, 148, 148, 148]], hidden_units=[1200, 1200])

    channels = [3, 76, 76, 126, 126, 148, 148, 148, 148]
    convolutions = sum(9 * before * after + after for before, after in itertools.pairwise(channels))
    hidden = 4 * 4 * 148 * 1200 + 1200 + 1200 * 1200 + 1200
    assert trainable(model) == convolutions + hidden + 1200 * 10 + 10
    assert round(trainable(model) / 1e6, 1) == 5.3


@settings(max_examples=20, derandomize=True)
@given(
    hidden=st.lists(st.integers(1, 8), max_size=3),
    linear=st.integers(1, 6),
    filters=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=2), min_size=1, max_size=2),
    classes=st.integers(1, 5),
)
def test_any_convolutional_student_has_the_parameters_counted_by_hand(hidden, linear, filters, classes):
    model = conv_student((9, 6, 2), classes, filters=filters, linear_units=linear, hidden_units=hidden, kernel_size=3)

    count, height, width, channels = 0, 9, 6, 2
    for block in filters:
        for width_of in block:
            count, channels = count + 9 * channels * width_of + width_of, width_of
        height, width = height // 2, width // 2
    count += height * width * channels * linear
    widths = [linear, *hidden, classes]
    count += sum(before * after + after for before, after in itertools.pairwise(widths))
    assert trainable(model) == count


def test_layers_of_the_mlp_in_order():
    assert kinds(mlp((4, 5), 3, hidden_units=[6, 7], dropout=0.5, input_dropout=0.2, input_scale=2.0)) == [
        "InputLayer",
        "Rescaling",
        "Dropout",
        "Flatten",
        *["Dense", "Activation", "Dropout"] * 2,
        "Dense",
    ]


def test_layers_of_the_bottleneck_in_order():
    model = bottleneck((4, 5), 3, linear_units=6, hidden_units=[7])

    assert kinds(model) == ["InputLayer", "Flatten", "Dense", "Dense", "Activation", "Dense"]
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [6, 7, 3]


def test_layers_of_the_convolutional_student_in_order():
    model = conv_student(IMAGE, 3, filters=[[4, 5], 6], linear_units=7, hidden_units=[8], batch_normalization=True)

    convolution = ["Conv2D", "BatchNormalization", "Activation"]
    assert kinds(model) == [
        "InputLayer",
        *[*convolution, *convolution, "MaxPooling2D"],
        *[*convolution, "MaxPooling2D"],
        "Flatten",
        "Dense",
        *["Dense", "BatchNormalization", "Activation"],
        "Dense",
    ]
    assert [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)] == [4, 5, 6]


def test_layers_of_the_cnn_in_order():
    assert kinds(cnn(IMAGE, 3, filters=[[3, 4], 5], hidden_units=[6, 7])) == [
        "InputLayer",
        *["Conv2D", "Activation"] * 2,
        "MaxPooling2D",
        *["Conv2D", "Activation", "MaxPooling2D"],
        "Flatten",
        *["Dense", "Activation"] * 2,
        "Dense",
    ]


@pytest.mark.parametrize(("net", "size"), [(conv_student, (5, 5)), (cnn, (3, 3))])
def test_default_filters_are_those_of_the_papers(net, size):
    (layer,) = [layer for layer in net(IMAGE, 3, filters=[4], hidden_units=[5]).layers if "conv" in layer.name]

    assert (layer.kernel_size, layer.strides, layer.padding) == (size, (1, 1), "same")


def test_kernel_and_pool_size_are_used():
    model = cnn((9, 9, 2), 3, filters=[4], hidden_units=[5], kernel_size=2, pool_size=3)

    assert model.layers[1].kernel.shape == (2, 2, 2, 4)
    assert model.layers[3].output.shape == (None, 3, 3, 4)


def test_a_number_is_a_block_of_one_convolution():
    one, other = (cnn(IMAGE, 3, filters=filters, hidden_units=[5]) for filters in ([4, 6], [[4], [6]]))

    assert kinds(one) == kinds(other)
    assert [weight.shape for weight in one.weights] == [weight.shape for weight in other.weights]


def test_the_bottleneck_is_linear_and_has_no_bias():
    model = bottleneck((4, 5), 3, linear_units=6, hidden_units=[7])
    layer = model.layers[2]
    first = keras.Model(model.input, layer.output)
    one, other = images(shape=(4, 5), seed=1), images(shape=(4, 5), seed=2)

    assert [weight.shape for weight in layer.weights] == [(20, 6)]
    np.testing.assert_allclose(first(2 * one - other), 2 * first(one) - first(other), rtol=1e-4, atol=1e-5)
    assert np.asarray(first(one)).min() < 0


def test_an_mlp_has_no_linear_layer_and_a_bias_in_each():
    model = mlp((4, 5), 3, hidden_units=[6])

    assert [weight.shape for weight in model.weights] == [(20, 6), (6,), (6, 3), (3,)]


def test_the_bottleneck_of_a_convolutional_student_can_be_left_out():
    model = conv_student(IMAGE, 3, filters=[4], hidden_units=[12])

    assert [layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [True, True]


def test_activation_is_used_in_every_hidden_layer_and_not_on_the_logits():
    model = small(cnn, activation="tanh")

    found = [layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    assert found == ["tanh"] * 4
    assert model.layers[-1].activation is keras.activations.linear


@every_net
def test_outputs_are_logits_not_probabilities(net):
    outputs = np.asarray(small(net)(images(64)))

    assert outputs.dtype == np.float32
    assert outputs.min() < 0 < outputs.max()
    assert np.abs(outputs.sum(-1) - 1).min() > 1e-3


@every_net
def test_logits_are_float32_in_mixed_precision(net, mixed):
    model = small(net, batch_normalization=True)

    assert model(images()).dtype == tf.float32
    assert {layer.compute_dtype for layer in model.layers if hasattr(layer, "kernel")} == {"bfloat16", "float32"}
    assert model.layers[-1].compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}


@every_net
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_size(net, count):
    model, inputs = small(net), images(5)

    outputs = np.asarray(model(inputs[:count]))

    assert outputs.shape == (count, 3)
    np.testing.assert_allclose(outputs, np.asarray(model(inputs))[:count], rtol=1e-5, atol=1e-6)


@every_net
def test_a_saved_and_loaded_net_gives_identical_outputs(net, tmp_path):
    options = {"dropout": 0.5, "input_dropout": 0.2, "weight_decay": 0.1, "batch_normalization": True}
    model = small(net, input_scale=0.5, **options)
    model(images(), training=True)
    model.save(tmp_path / "net.keras")

    loaded = keras.models.load_model(tmp_path / "net.keras")

    np.testing.assert_array_equal(loaded(images()), model(images()))
    assert (kinds(loaded), dropouts(loaded)) == (kinds(model), dropouts(model))
    assert float(sum(loaded.losses)) == float(sum(model.losses)) > 0


@every_net
def test_the_global_seed_decides_the_weights(net):
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return kernels(small(net))

    one, same, other = weights(7), weights(7), weights(8)
    for first, second, third in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.isclose(first, third).all()


@every_net
def test_the_layers_of_one_net_start_differently(net):
    values = [kernel.ravel()[:4].tolist() for kernel in kernels(small(net))]

    assert len({tuple(value) for value in values}) == len(values)


@pytest.mark.parametrize("batch_normalization", [False, True])
@every_net
def test_weight_decay_adds_half_d_times_the_squared_kernels_and_no_biases(net, batch_normalization):
    model = small(net, weight_decay=0.3, batch_normalization=batch_normalization)
    for weight in model.weights:
        if "kernel" not in weight.path:
            weight.assign(np.full(weight.shape, 100.0))

    by_hand = 0.3 / 2 * sum(np.sum(kernel.astype(np.float64) ** 2) for kernel in kernels(model))
    assert len(model.losses) == len(kernels(model))
    assert float(sum(model.losses)) == pytest.approx(by_hand, rel=1e-5)


def test_weight_decay_has_the_gradient_d_times_the_kernel():
    model = small(mlp, weight_decay=0.3)
    with tf.GradientTape() as tape:
        loss = sum(model.losses)

    for gradient, weight in zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights, strict=True):
        if "kernel" in weight.path:
            np.testing.assert_allclose(gradient, 0.3 * weight.numpy(), rtol=1e-6)
        else:
            assert gradient is None


def test_weight_decay_is_of_the_float32_kernels_in_mixed_precision(mixed):
    model = small(mlp, weight_decay=0.3)

    by_hand = 0.3 / 2 * sum(np.sum(kernel.astype(np.float64) ** 2) for kernel in kernels(model))
    assert float(sum(model.losses)) == pytest.approx(by_hand, rel=1e-5)


@every_net
def test_no_weight_decay_adds_no_loss(net):
    assert small(net).losses == []


def dropouts(model):
    """[(the layer before, rate)] of every Dropout."""
    pairs = itertools.pairwise(model.layers)
    return [(type(one).__name__, two.rate) for one, two in pairs if isinstance(two, keras.layers.Dropout)]


@every_net
def test_one_dropout_rate_comes_after_every_hidden_layer(net):
    model = small(net, dropout=0.3)

    assert dropouts(model) == [("Activation", 0.3)] * len(SMALL[net]["hidden_units"])


def test_a_list_of_dropout_rates_is_one_a_pooling_then_one_for_the_hidden_layers():
    model = cnn(IMAGE, 3, filters=[[3, 4], 5], hidden_units=[6, 7], dropout=[0.1, 0.2, 0.5])

    assert dropouts(model) == [("MaxPooling2D", 0.1), ("MaxPooling2D", 0.2), ("Activation", 0.5), ("Activation", 0.5)]
    assert [rate for _, rate in dropouts(small(conv_student, dropout=[0.0, 0.5]))] == [0.5]
    assert dropouts(small(conv_student, dropout=[0.4, 0.0])) == [("MaxPooling2D", 0.4)]


@pytest.mark.parametrize("rates", [[0.5], [0.1, 0.5], [0.1, 0.2, 0.3, 0.5], []])
def test_a_dropout_list_of_another_length_is_refused(rates):
    message = f"^dropout has {len(rates)} rates; 3 are needed: one per block, one for hidden layers$"
    with pytest.raises(ValueError, match=message):
        cnn(IMAGE, 3, filters=[4, 4], hidden_units=[5], dropout=rates)


@every_net
def test_input_dropout_zeroes_inputs_at_its_rate(net):
    model = small(net, input_dropout=0.25)
    assert dropouts(model) == [("InputLayer", 0.25)]
    dropped = keras.Model(model.input, model.layers[1].output)

    outputs = np.asarray(dropped(np.ones([100, *IMAGE], np.float32), training=True))

    np.testing.assert_allclose(np.unique(outputs), [0, 4 / 3], rtol=1e-6)
    # 12,800 draws: five standard deviations are 0.019.
    assert np.mean(outputs == 0) == pytest.approx(0.25, abs=0.02)


@every_net
def test_dropout_acts_in_training_alone(net):
    plain = small(net)
    model = small(net, dropout=0.5, input_dropout=0.5)
    model.set_weights(plain.get_weights())

    np.testing.assert_array_equal(model(images(), training=False), plain(images()))
    assert not np.allclose(model(images(), training=True), plain(images()))


@every_net
def test_input_scale_multiplies_the_inputs(net):
    plain, scaled = small(net), small(net, input_scale=0.25)
    scaled.set_weights(plain.get_weights())

    np.testing.assert_array_equal(scaled(images()), plain(images() * np.float32(0.25)))
    assert trainable(scaled) == trainable(plain)
    assert not np.allclose(scaled(images()), plain(images()))


@every_net
def test_initialization_scale_multiplies_the_initial_kernels(net):
    plain = kernels(small(net))
    keras.utils.set_random_seed(0)
    scaled = kernels(small(net, initialization_scale=3.0))

    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(other, 3 * one, rtol=1e-5, atol=1e-6)


def test_kernels_start_as_keras_own_do():
    model = cnn((16, 16, 8), 50, filters=[64], local_filters=[10], hidden_units=[200])
    # Fan-in and fan-out: convolution, locally connected layer, hidden layer, logits.
    expected = [(9 * 8, 9 * 64), (9 * 64, 9 * 10), (8 * 8 * 10, 200), (200, 50)]

    for kernel, (inputs, outputs) in zip(kernels(model), expected, strict=True):
        limit = math.sqrt(6 / (inputs + outputs))  # Glorot & Bengio 2010, equation 16
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / math.sqrt(3), rel=0.03)
    keras.utils.set_random_seed(5)
    ours = kernels(mlp((20,), 3, hidden_units=[30]))[0]
    keras.utils.set_random_seed(5)
    plain = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30)]).layers[0].kernel
    np.testing.assert_allclose(ours, plain, rtol=1e-6)


def test_kernels_start_with_hes_deviation_before_an_activation_and_lecuns_elsewhere():
    model = conv_student((16, 16, 8), 50, filters=[64], linear_units=100, hidden_units=[200], initialization="he")

    # Fan-in and the variance times the fan-in: convolution, linear bottleneck, hidden layer, logits.
    expected = [(5 * 5 * 8, 2.0), (8 * 8 * 64, 1.0), (100, 2.0), (200, 1.0)]
    for kernel, (inputs, gain) in zip(kernels(model), expected, strict=True):
        assert kernel.size >= 10_000
        assert kernel.std() == pytest.approx(math.sqrt(gain / inputs), rel=0.03)
        assert abs(kernel.mean()) < 0.05 * kernel.std()


@every_net
def test_the_last_layer_learns_as_one_of_the_base_width(net):
    """One step of gradient descent on the last layer's kernel changes the logits B / H times as much."""
    plain, scaled = small(net), small(net, output_base_width=3)
    width = plain.layers[-1].kernel.shape[0]
    weights = plain.get_weights()
    scaled.set_weights([*weights[:-2], weights[-2] / math.sqrt(3 / width), weights[-1]])
    x = images()

    def moved(model):
        kernel, before = model.layers[-1].kernel, model(x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x)))
        kernel.assign_sub(0.01 * tape.gradient(loss, kernel.value))
        return before, model(x) - before

    (start, change), (same_start, smaller) = moved(plain), moved(scaled)
    np.testing.assert_allclose(same_start, start, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(smaller, change * (3 / width), rtol=1e-3, atol=1e-6)


def test_the_base_width_keeps_what_the_net_starts_as():
    wide = mlp((50,), 40, hidden_units=[400], output_base_width=100)
    limit = math.sqrt(6 / (400 + 40)) * 2  # sqrt(400 / 100)

    assert 0.99 * limit < np.abs(wide.layers[-1].kernel).max() <= limit
    assert wide.layers[-2].scale == 0.5
    assert trainable(wide) == trainable(mlp((50,), 40, hidden_units=[400]))


def test_biases_start_at_zero():
    model = small(cnn)

    assert [np.abs(weight.numpy()).max() for weight in model.weights if "bias" in weight.path] == [0.0] * 5


@every_net
def test_batch_normalization_comes_before_every_activation_without_a_bias(net):
    model = small(net, batch_normalization=True)
    sequence = model.layers

    normalised = [i for i, layer in enumerate(sequence) if isinstance(layer, keras.layers.BatchNormalization)]
    activated = [i for i, layer in enumerate(sequence) if isinstance(layer, keras.layers.Activation)]
    assert len(normalised) > 0
    assert [i + 1 for i in normalised] == activated
    for i in normalised:
        assert sequence[i].synchronized is True
        assert sequence[i - 1].use_bias is False
        assert isinstance(sequence[i - 1], keras.layers.Dense | keras.layers.Conv2D)
    assert sequence[-1].use_bias is True


def test_batch_normalization_costs_one_parameter_a_unit_and_batch_statistics_are_used():
    plain, model = mlp((6,), 3, hidden_units=[10, 20]), mlp((6,), 3, hidden_units=[10, 20], batch_normalization=True)
    first = keras.Model(model.input, model.layers[3].output)
    inputs = images(50, (6,)) * 7 + 5

    outputs = np.asarray(first(inputs, training=True))

    assert trainable(model) == trainable(plain) + 10 + 20  # a scale and an offset each, less the bias
    np.testing.assert_allclose(outputs.mean(0), np.zeros(10), atol=1e-3)
    np.testing.assert_allclose(outputs.std(0), np.ones(10), atol=1e-2)


@pytest.mark.parametrize("net", [conv_student, cnn], ids=lambda net: net.__name__)
@pytest.mark.parametrize("shape", [(15, 123), (100,)])
def test_convolutions_over_anything_but_images_are_refused_by_name(net, shape):
    with pytest.raises(ValueError, match=f"^{net.__name__} convolves over") as caught:
        net(shape, 3, **SMALL[net])

    assert str(caught.value).endswith(f"[height, width, channels]; the data set's inputs are {shape}")


@every_net
def test_the_net_is_not_compiled_and_carries_its_name(net):
    model = small(net)

    assert model.compiled is False
    assert model.name == net.__name__
    assert (model.input_shape, model.output_shape) == ((None, *IMAGE), (None, 3))


def test_a_chain_of_ones_own_from_the_same_parts():
    chain = Chain("tanh", weight_decay=0.02, batch_normalization=True, initialization="he", initialization_scale=0.5)
    inputs = keras.Input((12, 2))
    x = chain.add_blocks(
        inputs,
        [[4, 5]],
        [0.1],
        lambda width, **options: keras.layers.Conv1D(width, 3, **options),
        lambda: keras.layers.MaxPooling1D(2),
    )
    x = chain.add_hidden(chain.add_linear(keras.layers.Flatten()(x), 6), [7], 0.0)
    model = keras.Model(inputs, chain.add_logits(x, 3))
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    activated = ["BatchNormalization", "Activation"]
    convolved = ["Conv1D", *activated, "Conv1D", *activated, "MaxPooling1D", "Dropout"]
    assert kinds == [*convolved, "Flatten", "Dense", "Dense", *activated, "Dense"]
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert [layer.kernel_initializer.scale for layer in kernels] == [0.5, 0.5, 0.25, 0.5, 0.25]
    assert [float(layer.kernel_regularizer.l2) for layer in kernels] == [pytest.approx(0.01)] * 5
    assert [layer.use_bias for layer in kernels] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("dropout", "blocks", "expected"),
    [(0.5, 0, ([], 0.5)), (0.5, 2, ([0.0, 0.0], 0.5)), ([0.1, 0.2, 0.3], 2, ([0.1, 0.2], 0.3))],
)
def test_dropout_rates_after_blocks_and_after_hidden_layers(dropout, blocks, expected):
    assert dropout_rates(dropout, blocks) == expected


# Separable convolutions


def test_a_separable_net_by_hand():
    """Convolution 2 to 3, then 3 to 4 as 3 filters of 9 and a layer of 3 to 4; pooling to 4 x 4; 4 to 5 likewise."""
    model = small(cnn, separable=True)

    convolutions = (2 * 9 * 3 + 3) + (3 * 9 + 3 * 4 + 4) + (4 * 9 + 4 * 5 + 5)
    assert trainable(model) == convolutions + (2 * 2 * 5 * 12 + 12) + (12 * 3 + 3)
    expected = 64 * 2 * 9 * 3 + 64 * (3 * 9 + 3 * 4) + 16 * (4 * 9 + 4 * 5) + 2 * 2 * 5 * 12 + 12 * 3
    assert count_multiply_adds(model, IMAGE) == expected


def test_separable_kernels_keep_the_variance_that_he_et_al_ask_for():
    """Depthwise: 1 / 9, since an output sees 9 inputs of its channel; pointwise: 2 / channels; scaled on the latter."""
    scaled = {"initialization": "he", "initialization_scale": 0.5}
    model = cnn((8, 8, 2), 3, filters=[[400, 400]], hidden_units=[4], separable=True, **scaled)
    depthwise, pointwise = (model.layers[place].kernel.numpy() for place in (3, 4))

    assert (depthwise.shape, pointwise.shape) == ((3, 3, 400, 1), (1, 1, 400, 400))
    np.testing.assert_allclose(depthwise.std(), np.sqrt(1 / 9), rtol=0.05)
    np.testing.assert_allclose(pointwise.std(), 0.5 * np.sqrt(2 / 400), rtol=0.05)


def test_separable_convolutions_decay_too_and_keep_no_second_bias():
    model = small(cnn, separable=True, weight_decay=0.5, batch_normalization=True)

    squares = sum(float(np.sum(kernel**2)) for kernel in kernels(model))
    np.testing.assert_allclose(sum(map(float, model.losses)), 0.25 * squares, rtol=1e-5)
    assert not any(layer.use_bias for layer in model.layers if "Conv" in type(layer).__name__)


@pytest.mark.parametrize("net", [conv_student, cnn])
def test_a_net_that_is_not_separable_has_the_key_that_it_had_before_there_were_any(net):
    def key(**options):
        spec = {"name": net.__name__, "hidden_units": [4], "filters": [3], **options}
        return bind("architecture", spec, Place(), Problems("x")).configuration()

    assert "separable" not in key()["arguments"]
    assert key(separable=False) == key()
    assert key(separable=True)["arguments"]["separable"] is True
