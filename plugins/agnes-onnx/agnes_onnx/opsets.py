"""Files newer than the installed onnxruntime: the same graph under a version that it knows."""

from __future__ import annotations

from typing import Any

from agnes.errors import Refused
from agnes.text import printable


def restamped(content: bytes, kind: str, newest: int) -> bytes:
    """A model under onnxruntime's newest opset, or format ("ir"); Refused where an operator has changed since."""
    import onnx

    model = onnx.load_model_from_string(content)
    if kind == "ir":
        model.ir_version = newest
        return model.SerializeToString()
    for imported in model.opset_import:
        if imported.domain not in ("", "ai.onnx") or imported.version <= newest:
            continue
        operators = {node.op_type for node in model.graph.node}
        changed = sorted(name for name in operators if _changed(name, newest, imported.version))
        if changed:
            raise Refused(
                f"refused: the file is of opset {imported.version}, and {printable(', '.join(changed))} changed after "
                f"opset {newest}, the newest that the installed onnxruntime knows; export it with opset {newest}"
            )
        imported.version = newest
    return model.SerializeToString()


def _changed(operator: str, old: int, new: int) -> bool:
    """Whether an operator takes other inputs or attributes than it did; new types of number alone do not count."""
    from onnx import defs

    try:
        before, after = defs.get_schema(operator, old, ""), defs.get_schema(operator, new, "")
    except defs.SchemaError:
        return True
    return _signature(before) != _signature(after)


def _signature(schema: Any) -> tuple[Any, ...]:
    return sorted(schema.attributes), len(schema.inputs), len(schema.outputs)
