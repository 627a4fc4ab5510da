"""Equal models are equal bytes, whoever exported them from where."""

import importlib.util
import subprocess
import sys
import warnings

import onnx
import pytest

from apps.errors import TrainingError
from apps.surrogates.export import canonical_bytes

MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(2, 4)
        self.two = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))

def {name}():
    torch.manual_seed(0)
    net = Net().eval()
    batch = torch.export.Dim("batch")
    return torch.onnx.export(
        net, (torch.zeros(3, 2),), dynamo=True, verbose=False, opset_version=18,
        input_names=["inputs"], dynamic_shapes={{"x": {{0: batch}}}},
    ).model_proto
"""


def exported(folder, name) -> onnx.ModelProto:
    folder.mkdir(parents=True)
    path = folder / f"{name}.py"
    path.write_text("\n" * len(name) + MODULE.format(name=name))
    spec = importlib.util.spec_from_file_location(f"made_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(module, name)()


def test_no_source_path_is_left_and_equal_models_are_equal_bytes(tmp_path):
    raw = [exported(tmp_path / "here", "first"), exported(tmp_path / "there" / "deep", "another")]
    before = [m.SerializeToString() for m in raw]
    assert str(tmp_path).encode() in before[0], "the exporter has stopped writing paths: good"
    one, two = (canonical_bytes(m) for m in raw)
    for text in (str(tmp_path), "/site-packages", "made_first", "first.py"):
        assert text.encode() not in one
    assert one == two
    assert [m.SerializeToString() for m in raw] == before
    onnx.checker.check_model(onnx.load_from_string(one))


def test_functions_and_subgraphs_are_stripped_too():
    from onnx import helper

    def prop(message):
        entry = message.metadata_props.add()
        entry.key, entry.value = "trace", "/work/somewhere.py"
        message.doc_string = "/work/somewhere.py"

    node = helper.make_node("Identity", ["a"], ["b"])
    prop(node)
    inner = helper.make_graph([node], "inner", [], [])
    prop(inner)
    branch = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([branch], "outer", [], [])
    function = helper.make_function("ours", "f", ["a"], ["b"], [node], [])
    prop(function)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    prop(model)
    model.domain = "/work"
    data = canonical_bytes(model)
    assert b"/work" not in data
    assert onnx.load_from_string(data).functions[0].domain == "ours"


def test_what_agents_cannot_read_is_refused():
    from onnx import helper

    graph = helper.make_graph([], "g", [], [])
    new = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with pytest.raises(TrainingError, match="opset 23"):
        canonical_bytes(new)


def test_importing_the_stages_is_light():
    code = (
        "import sys, apps.train, apps.validate, apps.publish; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'xarray', 'scipy', 'netCDF4')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
