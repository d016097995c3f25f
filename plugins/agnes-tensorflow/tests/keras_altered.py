"""A conversion that goes wrong, called in the child."""

from agnes_tensorflow import conversion, locating


def altered(source, onnx_of=conversion.onnx_of):
    """The ONNX of a model, the first numbers of its second kernel ten times as large."""
    from onnx import numpy_helper

    model, graph = onnx_of(source)
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    second = [node for node in model.graph.node if node.op_type == "Conv"][1].input[1]
    kernel = next(tensor for tensor in kernels if tensor.name == second)
    array = numpy_helper.to_array(kernel).copy()
    array[0] *= 10
    kernel.CopyFrom(numpy_helper.from_array(array, kernel.name))
    return model, graph


def converted(*arguments):
    conversion.onnx_of = altered
    return conversion.converted(*arguments)


def first_difference(*arguments):
    conversion.onnx_of = altered
    return locating.first_difference(*arguments)
