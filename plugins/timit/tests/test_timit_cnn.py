"""`timit_cnn`: its size by hand, its logits against NumPy from the same weights, and what reaches the convolution."""

import itertools

import keras
import numpy as np
import pytest
from mimic_keras_timit.architecture import timit_cnn

SMALL = {"filters": [4], "hidden_units": [6]}
BINS = np.arange(40)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def net(frames=15, classes=7, **keywords):
    return timit_cnn((frames, 123), classes, **{**SMALL, **keywords})


def inputs(count=3, frames=15, seed=0):
    return np.random.default_rng(seed).normal(size=[count, frames, 123]).astype(np.float32)


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def weights_of(layer):
    kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.weights)
    return kernel, bias


def shake_biases(model):
    """Biases start at 0: give them something to do."""
    for weight in model.weights:
        if "bias" in weight.path:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))


def forward(model, x, blocks, pool_size):
    """Logits in float64 from the weights alone; `blocks` is the number of convolutions before each pooling."""
    kinds = x.astype(np.float64).reshape(len(x), -1, 3, 41)  # example, frame, derivative, mel bin or energy
    mel = np.stack([kinds[:, :, :, bin_].reshape(len(x), -1) for bin_ in BINS], 1)
    convolutions = iter(layers_of(model, keras.layers.Conv1D))
    for block in blocks:
        for kernel, bias in (weights_of(next(convolutions)) for _ in range(block)):
            places = range(mel.shape[1] - len(kernel) + 1)
            mel = np.stack([np.einsum("nkc,kco->no", mel[:, at : at + len(kernel)], kernel) for at in places], 1)
            mel = np.maximum(mel + bias, 0)
        short = -mel.shape[1] % pool_size  # of a whole last pool: half of it is missing at either end
        mel = np.pad(mel, [(0, 0), (short // 2, short - short // 2), (0, 0)], constant_values=-np.inf)
        mel = np.stack([mel[:, at : at + pool_size].max(1) for at in range(0, mel.shape[1], pool_size)], 1)
    x = np.concatenate([mel.reshape(len(x), -1), kinds[..., 40].reshape(len(x), -1)], 1)
    *hidden, logits = layers_of(model, keras.layers.Dense)
    for layer in hidden:
        kernel, bias = weights_of(layer)
        x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = weights_of(logits)
    return x @ kernel + bias


# Sizes


def counted(filters, hidden, kernel=8, pool=3, frames=15, classes=7, normalized=False):
    """Parameters, by hand: a kernel and a bias each, or a kernel and two trained numbers and two averages."""
    extra = 4 if normalized else 1
    bins, channels, total = 40, 3 * frames, 0
    for block in filters:
        for width in [block] if isinstance(block, int) else block:
            total += kernel * channels * width + extra * width
            bins, channels = bins - kernel + 1, width
        bins = -(-bins // pool)
    widths = [bins * channels + 3 * frames, *hidden]
    total += sum(before * after + extra * after for before, after in itertools.pairwise(widths))
    return total + widths[-1] * classes + classes


def test_size_of_ba_and_caruanas_cnn():
    model = timit_cnn((15, 123), 183, filters=[200], hidden_units=[2000, 2000, 2000])

    convolution = 8 * 45 * 200 + 200
    hidden = (11 * 200 + 45) * 2000 + 2000 + 2 * (2000 * 2000 + 2000)
    assert model.count_params() == convolution + hidden + 2000 * 183 + 183 == 12_934_383
    assert model.input_shape == (None, 15, 123)
    assert model.output_shape == (None, 183)
    assert model.name == "timit_cnn"


@pytest.mark.parametrize(
    ("filters", "hidden", "settings"),
    [
        ([4], [6], {}),
        ([5], [], {}),
        ([], [6, 5], {}),
        ([3, 4], [6], {"kernel": 5, "pool": 2}),
        ([[3, 4], 5], [6, 5, 4], {"kernel": 4, "pool": 2}),
        ([[2, 2, 2]], [3], {"kernel": 7, "pool": 5}),
        ([4], [3], {"kernel": 1, "pool": 1}),
        ([4], [3], {"kernel": 40}),
        ([4], [3], {"kernel": 7}),
        ([4], [3], {"kernel": 6, "frames": 1, "classes": 2}),
        ([[3, 4], 5], [6, 5], {"kernel": 3, "normalized": True}),
    ],
)
def test_sizes(filters, hidden, settings):
    names = {"kernel": "kernel_size", "pool": "pool_size", "normalized": "batch_normalization"}
    keywords = {names.get(name, name): value for name, value in settings.items()}

    model = net(filters=filters, hidden_units=hidden, **keywords)

    assert model.count_params() == counted(filters, hidden, **settings)


# Logits


@pytest.mark.parametrize(
    ("filters", "blocks", "kernel_size", "pool_size"),
    [
        ([4], [1], 8, 3),  # 33 bins: none is left over
        ([4], [1], 6, 3),  # 35: two are
        ([4], [1], 7, 3),  # 34: one is
        ([4], [1], 4, 5),  # 37: two of five are
        ([[3, 4], 5], [2, 1], 4, 2),  # 34, 17; 14, 7
        ([3, 4], [1, 1], 4, 2),  # 37, of 19 the last alone; 16, 8
        ([], [], 8, 3),
    ],
)
def test_logits_are_numpys_from_the_same_weights(filters, blocks, kernel_size, pool_size):
    model = net(filters=filters, hidden_units=[6, 5], kernel_size=kernel_size, pool_size=pool_size)
    shake_biases(model)

    found = model(inputs())

    assert found.shape == (3, 7)
    np.testing.assert_allclose(found, forward(model, inputs(), blocks, pool_size), rtol=1e-4, atol=1e-5)


# What reaches the convolution


def convolved(model, x):
    """What the first convolution makes of inputs [frames, 123]: [bins, filters]."""
    (convolution,) = layers_of(model, keras.layers.Conv1D)
    return keras.Model(model.input, convolution.output)(x[None]).numpy()[0]


@pytest.mark.parametrize(("frame", "derivative"), [(0, 0), (0, 2), (7, 1), (14, 0), (14, 2)])
def test_a_kernel_of_width_1_sees_45_numbers_of_its_mel_bin(frame, derivative):
    model, x = net(filters=[1], kernel_size=1), inputs()[0]
    (convolution,) = layers_of(model, keras.layers.Conv1D)
    kernel = np.zeros([1, 45, 1])
    kernel[0, 3 * frame + derivative] = 1
    convolution.set_weights([kernel, np.zeros(1)])

    np.testing.assert_array_equal(convolved(model, x)[:, 0], x[frame, 41 * derivative : 41 * derivative + 40])


@pytest.mark.parametrize("bin_", [0, 7, 20, 39])
def test_a_mel_bin_reaches_the_eight_places_that_span_it(bin_):
    model, x = net(), inputs()[0]
    columns = [bin_, 41 + bin_, 82 + bin_]
    before = convolved(model, x)

    for frame, column in itertools.product((0, 7, 14), columns):
        changed = x.copy()
        changed[frame, column] += 1
        touched = np.flatnonzero((convolved(model, changed) != before).any(1))
        np.testing.assert_array_equal(touched, range(max(0, bin_ - 7), min(32, bin_) + 1))


def test_energies_reach_the_hidden_layers_and_no_convolution():
    model, x = net(), inputs()[0]
    before = convolved(model, x)
    changed = x.copy()
    changed[:, [40, 81, 122]] += 9

    np.testing.assert_array_equal(convolved(model, changed), before)
    hidden = layers_of(model, keras.layers.Dense)[0]
    joined = keras.Model(model.input, hidden.input)
    assert hidden.input.shape == (None, 11 * 4 + 45)
    np.testing.assert_array_equal(joined(x[None])[0, 44:], x[:, [40, 81, 122]].ravel())
    difference = joined(changed[None])[0] - joined(x[None])[0]
    np.testing.assert_allclose(difference, [0] * 44 + [9] * 45, atol=1e-5)


# Keywords


@pytest.mark.parametrize(
    ("filters", "dropout", "expected"),
    [
        ([4], 0.0, []),
        ([4], 0.5, [(2, 0.5), (3, 0.5)]),
        ([4], [0.1, 0.5], [(1, 0.1), (2, 0.5), (3, 0.5)]),
        ([[3, 4], 5], [0.1, 0.2, 0.0], [(2, 0.1), (3, 0.2)]),
        ([4], [0.0, 0.0], []),
    ],
)
def test_dropout_stands_where_it_is_said(filters, dropout, expected):
    """`expected`: behind how many convolutions and hidden layers, and its rate."""
    model = net(filters=filters, hidden_units=[6, 5], kernel_size=4, dropout=dropout)

    found, trained = [], 0
    for layer in model.layers:
        trained += isinstance(layer, keras.layers.Conv1D | keras.layers.Dense)
        if isinstance(layer, keras.layers.Dropout):
            found.append((trained, layer.rate))
    assert found == expected


def test_weight_decay_is_half_the_squared_norm_of_every_kernel():
    model = net(weight_decay=0.1)
    kernels = [weight.numpy() for weight in model.weights if "kernel" in weight.path]

    assert len(kernels) == 3
    np.testing.assert_allclose(sum(model.losses), 0.05 * sum((kernel**2).sum() for kernel in kernels), rtol=1e-5)
    assert net().losses == []


def test_batch_normalisation_takes_the_place_of_biases():
    model = net(batch_normalization=True)

    kinds = [type(layer).__name__ for layer in model.layers]
    places = [place for place, kind in enumerate(kinds) if kind == "BatchNormalization"]
    assert [(kinds[place - 1], kinds[place + 1]) for place in places] == [
        ("Conv1D", "Activation"),
        ("Dense", "Activation"),
    ]
    assert [weight.path for weight in model.weights if "bias" in weight.path] == ["logits/bias"]
    x = inputs(64) * 50
    hidden = keras.Model(model.input, model.layers[places[1]].output)(x, training=True).numpy()
    np.testing.assert_allclose(hidden.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(hidden.std(0), 1, atol=1e-3)


def test_kernels_have_hes_variance_and_the_last_one_lecuns():
    model = timit_cnn((15, 123), 183, filters=[200], hidden_units=[300], initialization="he")

    kernels = [weight.numpy() for weight in model.weights if "kernel" in weight.path]
    for kernel, gain in zip(kernels, (2, 2, 1), strict=True):
        fan_in = np.prod(kernel.shape[:-1])
        np.testing.assert_allclose(kernel.var(), gain / fan_in, rtol=0.05)


def test_logits_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = net()
    finally:
        keras.config.set_dtype_policy(before)

    assert model(inputs()).dtype == "float32"


def test_a_saved_net_gives_the_same_logits(tmp_path):
    model = net(filters=[[3, 4], 5], kernel_size=4, dropout=0.3, weight_decay=1e-4, batch_normalization=True)
    model.save(tmp_path / "net.keras")

    loaded = keras.models.load_model(tmp_path / "net.keras")

    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))
    assert loaded.count_params() == model.count_params()


# Errors


@pytest.mark.parametrize("shape", [(123,), (15, 122), (15, 41, 3), (123, 15), (32, 32, 3)])
def test_other_inputs_are_refused(shape):
    with pytest.raises(ValueError, match="timit_cnn takes") as caught:
        timit_cnn(shape, 7, **SMALL)

    assert str(caught.value) == f"timit_cnn takes [frames, 123]; the data set's inputs are {shape}"


@pytest.mark.parametrize(("filters", "rates"), [([4], [0.1]), ([4], [0.1] * 3), ([[3, 4], 5], [0.1, 0.2]), ([], [])])
def test_other_numbers_of_dropout_rates_are_refused(filters, rates):
    with pytest.raises(ValueError, match="dropout has") as caught:
        net(filters=filters, dropout=rates)

    assert str(caught.value) == (
        f"dropout has {len(rates)} rates; {len(filters) + 1} are needed: one per block, one for hidden layers"
    )


# Limited weight sharing and overlapping pools


@pytest.mark.parametrize(("pool", "stride"), [(3, None), (6, 2)])
def test_every_pool_has_filters_of_its_own(pool, stride):
    model = net(kernel_size=5, pool_size=pool, pool_stride=stride, weight_sharing="limited")
    shake_biases(model)
    x = inputs()
    kinds = x.astype(np.float64).reshape(len(x), -1, 3, 41)
    mel = np.stack([kinds[:, :, :, bin_].reshape(len(x), -1) for bin_ in BINS], 1)
    convolutions = layers_of(model, keras.layers.Conv1D)
    starts = range(0, 40 - (5 + pool - 1) + 1, stride or pool)
    assert len(convolutions) == len(starts)
    pools = []
    for layer, start in zip(convolutions, starts, strict=True):
        kernel, bias = weights_of(layer)
        places = range(start, start + pool)
        values = np.stack([np.einsum("nkc,kco->no", mel[:, at : at + 5], kernel) + bias for at in places])
        pools.append(np.maximum(values, 0).max(0))
    features = np.concatenate([*pools, kinds[..., 40].reshape(len(x), -1)], 1)
    (kernel, bias), (out, offset) = (weights_of(layer) for layer in layers_of(model, keras.layers.Dense))
    expected = np.maximum(features @ kernel + bias, 0) @ out + offset

    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


def test_overlapping_pools_are_max_pools_at_a_stride():
    full = net(filters=[4], kernel_size=8, pool_size=6, pool_stride=2)

    (pooling,) = layers_of(full, keras.layers.MaxPooling1D)
    assert pooling.output.shape == (None, 17, 4)  # ceil(33 / 2)


@pytest.mark.parametrize("filters", [[4, 4], [[4, 4]]])
def test_limited_sharing_takes_one_convolution(filters):
    with pytest.raises(ValueError, match="weight_sharing: limited takes one convolution"):
        net(filters=filters, weight_sharing="limited")
