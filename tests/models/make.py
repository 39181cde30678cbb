"""Makes the small models beside it, whose results can be computed by hand. Needs the package onnx.

    linear.onnx     [N, 2] -> 2 a + 3 b + 1
    tenfold.onnx    [N, 2] -> 10 a
    stump.onnx      [N, 1] -> a label, "low" up to 5 and "high" above, and the probabilities of "high" and "low"
    two.onnx        a float [N] and whole numbers [N, 2] -> x + m + n
    fixed.onnx      [1, 2] -> the same as linear.onnx, exported for one row only
    kernel.onnx     an operator that is not supported
    maps.onnx       a classifier with ZipMap
"""

import pathlib

from onnx import TensorProto, helper

HERE = pathlib.Path(__file__).parent
FLOAT, INT, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, producer_name="make.py", opset_imports=opsets, ir_version=9)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def linear(name, coefficients, intercept, rows=None):
    node = helper.make_node(
        "LinearRegressor", ["features"], ["y"], domain="ai.onnx.ml",
        coefficients=coefficients, intercepts=[intercept],
    )
    save(name, [node], [value("features", FLOAT, [rows, 2])], [value("y", FLOAT, [rows, 1])])


linear("linear", [2.0, 3.0], 1.0)
linear("tenfold", [10.0, 0.0], 0.0)
linear("fixed", [2.0, 3.0], 1.0, rows=1)

stump = helper.make_node(
    "TreeEnsembleClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml",
    classlabels_strings=["high", "low"],
    nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
    nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[5.0, 0.0, 0.0],
    nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
    class_treeids=[0, 0, 0, 0], class_nodeids=[1, 1, 2, 2], class_ids=[0, 1, 0, 1],
    class_weights=[0.25, 0.75, 1.0, 0.0], post_transform="NONE",
)
save("stump", [stump], [value("x", FLOAT, [None, 1])],
     [value("label", TEXT, [None]), value("probabilities", FLOAT, [None, 2])])

save("two",
     [helper.make_node("Cast", ["counts"], ["floats"], to=FLOAT),
      helper.make_node("ReduceSum", ["floats", "axes"], ["sums"], keepdims=0),
      helper.make_node("Add", ["x", "sums"], ["y"])],
     [value("x", FLOAT, ["rows"]), value("counts", INT, ["rows", 2])], [value("y", FLOAT, ["rows"])],
     [helper.make_tensor("axes", INT, [1], [1])])

kernel = helper.make_node(
    "SVMRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0], kernel_type="LINEAR",
    n_supports=1, rho=[0.0], support_vectors=[1.0],
)
save("kernel", [kernel], [value("x", FLOAT, [None, 1])], [value("y", FLOAT, [None, 1])])

maps = [
    helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
                     classlabels_ints=[0, 1], coefficients=[-1.0, 1.0], intercepts=[0.0, 0.0]),
    helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
]
kind = helper.make_map_type_proto(INT, helper.make_tensor_type_proto(FLOAT, []))
save("maps", maps, [value("x", FLOAT, [None, 1])],
     [value("label", INT, [None]), helper.make_value_info("maps", helper.make_sequence_type_proto(kind))])
