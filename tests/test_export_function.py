"""`td.export.export`: functions of any kind as files that were run before they are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_export import installed

import td
from td.export import export, formats

pytestmark = installed
IMAGES = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 4, 3)))
WITHOUT_ONNX = ("stablehlo", "safetensors")


def network(params, inputs):
    hidden = jax.nn.relu(inputs["images"].mean((1, 2)) @ params["first"] + params["bias"])
    return {"logits": hidden @ params["last"], "norm": jnp.linalg.norm(hidden, axis=1)}


def weights():
    first, last = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(3, 6), (6, 2)]))
    return {"first": first.at[:, 4:].set(0), "bias": jnp.arange(6.0), "last": last}


def test_a_compacted_function_is_exported_for_any_batch(tmp_path):
    small = td.compact(network, weights(), {"images": IMAGES})
    files = export(small.apply, small.params, {"images": IMAGES}, path=tmp_path / "net", formats=WITHOUT_ONNX)
    assert files.batch == dict.fromkeys(WITHOUT_ONNX, "any") and max(files.deviation.values()) < 1e-6
    more = np.concatenate([IMAGES] * 3)
    logits, _ = formats.open_stablehlo(files.paths["stablehlo"].read_bytes())(more)
    np.testing.assert_allclose(logits, network(weights(), {"images": more})["logits"], rtol=1e-5, atol=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"net.stablehlo", "net.safetensors"}


def test_a_fixed_batch_is_that_of_the_file(tmp_path):
    shape = {"images": jax.ShapeDtypeStruct(IMAGES.shape, "float32")}
    files = export(network, weights(), shape, path=tmp_path / "net.stablehlo", formats="stablehlo", batch=5)
    call = formats.open_stablehlo(files.paths["stablehlo"].read_bytes())
    assert files.batch == {"stablehlo": 5} and call(np.zeros((5, 4, 4, 3), np.float32))[0].shape == (5, 2)
    with pytest.raises(ValueError, match="shape"):
        call(IMAGES)


def test_without_a_symbolic_batch_that_of_the_example_is_fixed(tmp_path, caplog):
    def odd(params, x):
        return x * params if len(x) % 2 else -x

    files = export(odd, jnp.ones(3), jnp.ones((2, 3)), path=tmp_path / "net", formats=WITHOUT_ONNX)
    assert files.batch == {"stablehlo": 2, "safetensors": "any"}
    (line,) = caplog.messages
    assert "stablehlo for batches of 2 only" in line and "any batch fails (TypeError" in line


def test_inputs_of_other_lengths_have_no_batch(tmp_path):
    def add(params, x, table, step):
        return x @ params + table[step]

    inputs = (jnp.ones((2, 3)), jnp.ones((5, 4)), 3)  # compaction tells a number of Python from an int32
    small = td.compact(add, jnp.ones((3, 4)), *inputs)
    files = export(small.apply, small.params, *inputs, path=tmp_path / "net", formats="stablehlo")
    call = formats.open_stablehlo(files.paths["stablehlo"].read_bytes())
    assert call(np.ones((7, 3), np.float32), np.ones((5, 4), np.float32), np.int32(3))[0].shape == (7, 4)


def test_nothing_is_written_where_a_file_computes_something_else(tmp_path, monkeypatch):
    (tmp_path / "net.stablehlo").write_text("of yesterday")
    wrong = formats.FORMATS["safetensors"]._replace(
        open=lambda data, function: lambda *inputs: [np.full((2, 3), np.nan)]
    )
    monkeypatch.setitem(formats.FORMATS, "safetensors", wrong)
    with pytest.raises(td.UserError, match="safetensors .*outputs differ by nan"):
        export(lambda params, x: x * params, jnp.ones(3), jnp.ones((2, 3)), path=tmp_path / "net", formats=WITHOUT_ONNX)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of yesterday"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"formats": "onxx"}, "did you mean 'onnx'"),
        ({"batch": "all"}, "valid: any, fixed"),
        ({"batch": 0}, "batch=0 is out of range"),
    ],
)
def test_mistakes_are_errors_of_the_user(tmp_path, settings, words):
    with pytest.raises(td.UserError, match=words):
        export(network, weights(), {"images": IMAGES}, path=tmp_path / "net", **settings)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_function_is_not_hidden(tmp_path):
    with pytest.raises(TypeError, match="dot_general"):
        export(lambda params, x: x @ params, jnp.ones((5, 2)), jnp.ones((2, 3)), path=tmp_path / "net")


def pooled(params, images):
    """Max pooling as images have channels last or first, over one axis, with borders, in an array of five axes."""
    window = dict(window_strides=(1, 2, 2, 1), padding=((0, 0), (1, 1), (0, 1), (0, 0)))
    last = lax.reduce_window(images @ params["first"], -jnp.inf, lax.max, (1, 3, 2, 1), **window)
    first = lax.reduce_window(jnp.moveaxis(images, 3, 1), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    one = lax.reduce_window(images, -jnp.inf, lax.max, (1, 1, 2, 1), (1, 1, 2, 1), "VALID")
    five = lax.reduce_window(images[:, None], -jnp.inf, lax.max, (1, 1, 2, 2, 1), (1, 1, 1, 1, 1), "SAME")
    return last, first, one, five


def masked(params, images):
    """Attention whose mask selects among flags, a product of two types, and sums along an axis given by position."""
    queries = images @ params["first"]
    attended = jax.nn.dot_product_attention(queries, queries, queries, is_causal=True)
    return jnp.cumsum(jnp.einsum("bhwc,w->bhwc", attended, jnp.arange(4)), 1)


@pytest.mark.slow
def test_onnx_is_exported_twice_and_jax_is_as_before(tmp_path):
    for apply in (pooled, masked, pooled, masked):
        files = export(apply, weights(), IMAGES, path=tmp_path / "net")
        assert {*files.batch.values()} == {"any"} and max(files.deviation.values()) < 1e-5
    assert jnp.cumsum(jnp.ones((2, 2)), 1)[0, 1] == 2  # jax2onnx's own takes no axis by position


@installed
@pytest.mark.slow
def test_onnx_computes_with_the_size_of_the_batch(tmp_path):
    made = export(
        lambda params, x: (x - x.mean(0)) @ params, jnp.ones((3, 2)), jnp.eye(3), path=tmp_path / "m", formats=("onnx",)
    )
    assert made.batch == {"onnx": "any"}


@pytest.mark.slow
def test_onnx_has_the_given_names(tmp_path):
    names = {"input_names": ["images"], "output_names": ["logits", "norm"], "metadata": {"classes": "a b"}}
    files = export(network, weights(), {"images": IMAGES}, path=tmp_path / "net", formats="onnx", **names)
    import onnx

    model = onnx.load(files.paths["onnx"])
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "logits", "norm"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"classes": "a b"}
