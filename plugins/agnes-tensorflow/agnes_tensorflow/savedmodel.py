"""SavedModel folders: read as data, and refused unless all that they could do is known to be harmless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from agnes.errors import Refused
from agnes.text import printable
from agnes_tensorflow import protobuf
from agnes_tensorflow.operators import COMPUTING, SAVING

GRAPH_FILE = "saved_model.pb"
_FILES = frozenset((GRAPH_FILE, "fingerprint.pb", "keras_metadata.pb"))
_VARIABLES = ("variables.index", "variables.data-")
_GRAPH_BYTES = 512 << 20
_SMALL = 4 << 20  # bytes of a graph that are read in the process itself
_NODES = 500_000
_ENTRIES = 1000  # files and folders
_CALLS = 100  # functions within functions
_INIT = "__saved_model_init_op"
_RUN_FIRST = frozenset(("saved_model_main_op", "legacy_init_op", "table_initializer", "saved_model_assets"))

# numbers of fields in TensorFlow's messages
_META_GRAPHS = 2  # SavedModel
_GRAPH, _SAVER, _COLLECTIONS, _SIGNATURES, _ASSETS, _OBJECTS = 2, 3, 4, 5, 6, 7  # MetaGraphDef
_NODE, _LIBRARY = 1, 2  # GraphDef
_FUNCTION, _SIGNATURE, _FUNCTION_NODE = 1, 1, 3  # FunctionDefLibrary, FunctionDef
_KEY, _VALUE = 1, 2  # an entry of a map
_ATTRIBUTE, _FUNC, _LIST, _LIST_FUNC = 5, 10, 1, 9  # NodeDef, AttrValue, AttrValue.ListValue


@dataclass(frozen=True)
class _Node:
    name: str
    operator: str
    inputs: tuple[str, ...]
    calls: tuple[str, ...]  # functions that it is given


def looks_like(path: Path) -> bool:
    """Whether a folder holds a SavedModel."""
    return path.is_dir() and any((path / name).is_file() for name in (GRAPH_FILE, "saved_model.pbtxt"))


def is_large(path: Path) -> bool:
    """Whether a graph is so large that hostile content could make reading it last, so that it is read in the child."""
    return (path / GRAPH_FILE).stat().st_size > _SMALL


def check_graph(path: Path) -> tuple[dict[str, int], list[int]]:
    """Refuse a graph that does more than compute; return how often each operator is used, and its input's sizes."""
    content = memoryview((path / GRAPH_FILE).read_bytes())
    try:
        model = _Model(content, printable(path.name))
        return model.check(), model.input_sizes()
    except protobuf.Malformed as error:
        raise Refused(f"refused: {GRAPH_FILE} in {printable(path.name)} is broken: {error}") from None


def check_files(path: Path, limit: int) -> None:
    """Refuse a folder that holds more than a graph and its variables."""
    total, name = 0, printable(path.name)
    entries = sorted(islice(path.rglob("*"), _ENTRIES + 1))
    if len(entries) > _ENTRIES:
        raise Refused(f"refused: {name} holds more than {_ENTRIES} files and folders")
    for found in entries:
        where = found.relative_to(path)
        if found.is_symlink() or not (found.is_file() or found.is_dir()):
            raise Refused(f"refused: {printable(where)} in {name} is a link or no regular file")
        if found.is_dir():
            if str(where) not in ("variables", "assets"):
                raise Refused(
                    f"refused: {name} holds the folder {printable(where)!r}; AGNES opens graphs and variables only"
                )
            continue
        total += found.stat().st_size
        if where.parts[0] == "assets":
            raise Refused(
                f"refused: {name} brings the asset {printable(where)!r}, such as a vocabulary; export it without"
            )
        own = str(where) in _FILES or (where.parts[0] == "variables" and where.name.startswith(_VARIABLES))
        if not own:
            raise Refused(f"refused: {name} holds {printable(where)!r}; AGNES opens graphs and variables only")
    if total > limit:
        raise Refused(f"refused: {name} is larger than savedmodel.size_limit ({limit} bytes)")
    if not (path / GRAPH_FILE).is_file() or (path / GRAPH_FILE).stat().st_size > _GRAPH_BYTES:
        raise Refused(f"refused: {name} has no {GRAPH_FILE} of at most {_GRAPH_BYTES} bytes")


class _Model:
    """The graph and the functions of a SavedModel."""

    def __init__(self, content: memoryview, name: str) -> None:
        self._name = name
        graphs = list(protobuf.messages(content, _META_GRAPHS))
        if len(graphs) != 1:
            raise Refused(f"refused: {name} holds {len(graphs)} graphs; export one, for serving")
        self._meta = graphs[0]
        self._main: list[_Node] = []
        self._functions: dict[str, list[_Node]] = {}
        self._sizes: dict[str, int] = {}  # of functions, with what they call
        for graph in protobuf.messages(self._meta, _GRAPH):
            self._main += [_node(each) for each in protobuf.messages(graph, _NODE)]
            for library in protobuf.messages(graph, _LIBRARY):
                for function in protobuf.messages(library, _FUNCTION):
                    self._add(function)

    def _add(self, function: memoryview) -> None:
        names = {protobuf.text(each, 1) for each in protobuf.messages(function, _SIGNATURE)}
        if len(names) != 1 or "" in names or names & self._functions.keys():
            raise Refused(f"refused: {self._name} defines a function without a name of its own")
        self._functions[names.pop()] = [_node(each) for each in protobuf.messages(function, _FUNCTION_NODE)]

    def check(self) -> dict[str, int]:
        """Refuse what is not known to be harmless."""
        counts: dict[str, int] = {}
        for where, nodes in self._parts():
            for node in nodes:
                counts[node.operator] = counts.get(node.operator, 0) + 1
                if node.operator not in COMPUTING | SAVING and node.operator not in self._functions:
                    raise Refused(
                        f"refused: {self._name} uses TensorFlow's operator {printable(node.operator)} at "
                        f"{printable(node.name)}{where}, which AGNES does not know to be harmless; export to ONNX"
                    )
        if sum(counts.values()) > _NODES:
            raise Refused(f"refused: {self._name} has more than {_NODES} operations")
        if max(self._expanded(nodes, ()) for _, nodes in self._parts()) > _NODES:
            raise Refused(f"refused: {self._name} has more than {_NODES} operations where its functions are called")
        self._check_meta()
        self._check_saving()
        known = {name: count for name, count in counts.items() if name not in self._functions}
        return dict(sorted(known.items(), key=lambda each: -each[1]))

    def input_sizes(self) -> list[int]:
        """The sizes of the first input of the first signature that says some."""
        for entry in protobuf.messages(self._meta, _SIGNATURES):
            for shape in _within(entry, _VALUE, 1, _VALUE, 3):  # SignatureDef.inputs, TensorInfo.tensor_shape
                dims = [dict(protobuf.fields(dim)).get(1) for dim in protobuf.messages(shape, 2)]
                if dims:
                    return [size if isinstance(size, int) and size < 1 << 31 else 0 for size in dims]
        return []

    def _expanded(self, nodes: Sequence[_Node], inside: tuple[str, ...]) -> int:
        """How many operations some nodes come to, with those of the functions that they call."""
        total = len(nodes)
        for node in nodes:
            for name in (node.operator, *node.calls):
                if name in inside or len(inside) > _CALLS:
                    raise Refused(
                        f"refused: {self._name} has a function {printable(name)} that calls itself, or calls too deep"
                    )
                if name in self._functions:
                    if name not in self._sizes:
                        self._sizes[name] = self._expanded(self._functions[name], (*inside, name))
                    total += self._sizes[name]
        return total

    def _parts(self) -> Iterator[tuple[str, Sequence[_Node]]]:
        yield "", self._main
        for name, nodes in self._functions.items():
            yield f" in function {printable(name)}", nodes

    def _check_meta(self) -> None:
        if any(True for _ in protobuf.messages(self._meta, _ASSETS)):
            raise Refused(f"refused: {self._name} names an asset, a file that it would read; export it without")
        if not any(True for _ in protobuf.messages(self._meta, _OBJECTS)):
            raise Refused(
                f"refused: {self._name} is a SavedModel of TensorFlow 1; export it with TensorFlow 2 or to ONNX"
            )
        nodes = {node.name: node for node in self._main}
        for name in self._run_first():
            node = nodes.get(name.partition(":")[0])
            if node is None or node.operator != "NoOp" or node.inputs:
                raise Refused(f"refused: {self._name} wants to run {printable(name)} when it is opened (main_op)")

    def _run_first(self) -> Iterator[str]:
        """What the model asks to be run when it is opened; in a plain export, an operation that does nothing."""
        for entry in protobuf.messages(self._meta, _COLLECTIONS):
            if protobuf.text(entry, _KEY) in _RUN_FIRST:
                for collection in protobuf.messages(entry, _VALUE):
                    for number, value in protobuf.fields(collection):
                        names = protobuf.messages(value, 1) if number == 1 and not isinstance(value, int) else (b"?",)
                        yield from (bytes(name).decode("utf-8", "replace") for name in names)
        for entry in protobuf.messages(self._meta, _SIGNATURES):
            if protobuf.text(entry, _KEY) == _INIT:
                yield from _outputs(entry)

    def _check_saving(self) -> None:
        """Operators that touch files stand in functions that only the model's own saver calls."""
        saving = {name for name, nodes in self._functions.items() if any(n.operator in SAVING for n in nodes)}
        savers = {
            name.partition(":")[0]
            for saver in protobuf.messages(self._meta, _SAVER)
            for name in (protobuf.text(saver, 2), protobuf.text(saver, 3))  # save_tensor_name, restore_op_name
        }
        for where, nodes in self._parts():
            inside = where.removeprefix(" in function ") if where else ""
            for node in nodes:
                touches = node.operator in SAVING and inside not in map(printable, saving)
                calls = saving.intersection((node.operator, *node.calls))
                if touches or (calls and (inside or node.name not in savers)):
                    raise Refused(
                        f"refused: {self._name} reads or writes files at {printable(node.name)}{where}, "
                        "beyond saving its own variables"
                    )


def _node(message: memoryview) -> _Node:
    inputs = tuple(bytes(each).decode("utf-8", "replace") for each in protobuf.messages(message, 3))
    return _Node(protobuf.text(message, 1), protobuf.text(message, 2), inputs, tuple(_calls(message)))


def _calls(node: memoryview) -> Iterator[str]:
    for entry in protobuf.messages(node, _ATTRIBUTE):
        for value in protobuf.messages(entry, _VALUE):
            for func in protobuf.messages(value, _FUNC):
                yield protobuf.text(func, 1)
            for several in protobuf.messages(value, _LIST):
                for func in protobuf.messages(several, _LIST_FUNC):
                    yield protobuf.text(func, 1)


def _within(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The messages that lie in a field of a field of a message."""
    for inner in protobuf.messages(message, numbers[0]):
        if len(numbers) == 1:
            yield inner
        else:
            yield from _within(inner, *numbers[1:])


def _outputs(entry: memoryview) -> Iterator[str]:
    """The tensors that a signature gives."""
    for tensor in _within(entry, _VALUE, 2, _VALUE):  # SignatureDef.outputs
        yield protobuf.text(tensor, 1)
