"""What is read off a graph: signature, kind, task and recurrences."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from converters import describe
from edge_sdk.bundle.record import State
from edge_sdk.errors import SourceError


def model(signature: str, body: str, head: str = '<ir_version: 8, opset_import: ["" : 17]>'):
    return ir.from_proto(onnx.parser.parse_model(f"{head} g {signature} {{ {body} }}"))


RECURRENT = model(
    "(float[1,4] x, float[1,8] {i}) => (float[1,4] y, float[1,8] {o})".format(i="h", o="hn"),
    "y = Identity(x) hn = Identity(h)",
)


def test_scalar_output_is_no_classification():
    found = model("(float[1,4] x) => (float y)", "y = ReduceSum <keepdims = 0> (x)")
    assert describe.task_of(found, describe.graph_outputs(found)) == "generic"


def test_an_output_named_twice_is_one_output():
    found = model("(float[1,4] x) => (float[1,4] y, float[1,4] y)", "y = Relu(x)")
    assert [spec.name for spec in describe.graph_outputs(found)] == ["y"]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("h", "hn"),
        ("state", "stateN"),
        ("state_in", "state_out"),
        ("h0", "hn"),
        ("past_key", "present_key"),
        ("hidden.prev", "hidden.next"),
        ("cache", "new_cache"),
    ],
)
def test_state_is_found_by_name_and_shape(given, result):
    found = ir.from_proto(ir.to_proto(RECURRENT))
    found.graph.inputs[1].name = given
    found.graph.outputs[1].name = result
    assert describe.find_states(found) == (State(input=given, output=result),)


def test_output_of_another_shape_is_no_state():
    other = model("(float[1,4] x, float[1,8] h) => (float[1,4] hn)", "hn = Add(x, x)")
    assert describe.find_states(other) == ()


def test_unrelated_names_are_no_state():
    other = model("(float[1,4] image) => (float[1,4] logits)", "logits = Relu(image)")
    assert describe.find_states(other) == ()


def test_model_of_nothing_but_states_has_none():
    denoiser = model("(float[N,4] image) => (float[N,4] image_out)", "image_out = Relu(image)")
    assert describe.find_states(denoiser) == ()


def test_state_may_be_named_whatever_its_tensors_are_called():
    toy = model(
        "(float[1,4] x, float[1,4] prev) => (float[1,4] y, float[1,4] next)",
        "y = Identity(x) next = Add(x, prev)",
    )
    state = State(input="prev", output="next")
    assert describe.check_states(toy, (state,)) == (state,)


def test_named_state_that_does_not_exist_lists_what_does():
    with pytest.raises(SourceError, match="outputs are y, hn; its inputs are x, h"):
        describe.check_states(RECURRENT, (State(input="nope", output="hn"),))


def test_unknown_dimensions_get_names_of_their_own():
    spec = describe.graph_inputs(model("(float[N,3,M] x) => (float[N,3,M] y)", "y = Relu(x)"))[0]
    assert spec.shape == ("N", 3, "M")
    value = ir.Value(
        name="v", shape=ir.Shape(["?", None, -1]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    assert describe.tensor_spec(value).shape == ("v.0", "v.1", "v.2")


def test_convolution_over_images_is_vision():
    image = model("(float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,6,6] y)", "y = Conv(x, w)")
    assert describe.kind_of(image) == "vision"


def test_attention_over_tokens_is_encoder():
    encoder = model(
        "(int64[1,n] ids, float[9,4] table) => (float[1,n,n] y)",
        "e = Gather(table, ids) t = Transpose<perm=[0,2,1]>(e) s = MatMul(e, t) y = Softmax(s)",
    )
    assert describe.kind_of(encoder) == "encoder"


def test_scores_per_class_are_classification():
    outputs = (describe.tensor_spec(RECURRENT.graph.outputs[0]),)
    assert describe.task_of(RECURRENT, outputs) == "classification"
