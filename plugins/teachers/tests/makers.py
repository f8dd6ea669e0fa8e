"""Files of other frameworks for the tests, and what is in them."""

import numpy as np
import onnx
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier

TREE = "sklearn.tree._tree.Tree"


def save_onnx(
    path,
    kernel,
    input_shape,
    *,
    first="examples",
    dtype=TensorProto.FLOAT,
    outputs=("logits",),
    inputs=("x",),
    softmax=False,
    external=False,
):
    """A file with the linear net flatten(x) @ kernel, and as many outputs, k times the logits for the k-th."""
    features, classes = kernel.shape
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    constants = [
        numpy_helper.from_array(kernel.astype(numpy_type), "kernel"),
        numpy_helper.from_array(np.array([-1, features]), "flat_shape"),
    ]
    nodes = [
        helper.make_node("Reshape", [inputs[0], "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["product"]),
    ]
    for count, name in enumerate(outputs, 1):
        constants.append(numpy_helper.from_array(np.array(count, numpy_type), f"times_{name}"))
        product = f"{name}_product" if softmax else name
        nodes.append(helper.make_node("Mul", ["product", f"times_{name}"], [product]))
        if softmax:
            nodes.append(helper.make_node("Softmax", [product], [name], axis=-1))
    given = [helper.make_tensor_value_info(name, dtype, [first, *input_shape]) for name in inputs]
    made = [helper.make_tensor_value_info(name, dtype, [first, classes]) for name in outputs]
    graph = helper.make_graph(nodes, "net", given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=external, location="weights", size_threshold=0)
    return path


def save_zipmap(path, classes):
    """As skl2onnx exports a classifier by default: labels, and a sequence of {class: probability}."""
    domain = helper.make_opsetid("ai.onnx.ml", 3)
    nodes = [
        helper.make_node("ArgMax", ["x"], ["output_label"], axis=1, keepdims=0),
        helper.make_node(
            "ZipMap", ["x"], ["output_probability"], domain="ai.onnx.ml", classlabels_int64s=range(classes)
        ),
    ]
    probabilities = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    outputs = [
        helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
        helper.make_value_info("output_probability", helper.make_sequence_type_proto(probabilities)),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, classes])]
    graph = helper.make_graph(nodes, "classifier", given, outputs)
    opsets = [helper.make_opsetid("", 17), domain]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def make_forest(features, classes, seed=0, **options):
    random = np.random.default_rng(seed)
    inputs = random.random((20 * classes, features))
    return RandomForestClassifier(5, random_state=seed, **options).fit(inputs, np.arange(len(inputs)) % classes)


def save_skops(path, model):
    skops.io.dump(model, path)
    return path
