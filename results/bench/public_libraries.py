"""Twenty networks of libraries that pip installs, small: a name to a function that returns a `Model`.

pip install '.[lab,test]' 'transformers<5'
"""

import os
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"KERAS_BACKEND": "jax", "TRANSFORMERS_VERBOSITY": "error"}  # read by imports

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import transformers
from flax import nnx

Model = tuple[Callable[..., Any], Any, tuple[Any, ...]]
"""A function `(params, *inputs) -> outputs`, its parameters, and example inputs."""


def images(*shape: int) -> Any:
    """Two images."""
    return jax.random.normal(jax.random.key(0), (2, *shape))


def tokens(length: int = 48) -> Any:
    """Two sentences."""
    return jax.random.randint(jax.random.key(0), (2, length), 2, 100)


def hugging_face(name: str, head: str, *inputs: Any, **config: Any) -> Model:
    """A Flax model of transformers."""
    model = getattr(transformers, f"Flax{name}{head}")(getattr(transformers, f"{name}Config")(**config))
    rest = {kind: leaves for kind, leaves in model.params.items() if kind == "batch_stats"}
    names = ("pixel_values" if head == "ForImageClassification" else "input_ids", "decoder_input_ids")

    def apply(params: Any, *given: Any) -> Any:
        variables = {"params": params, **rest} if rest else params
        return model(**dict(zip(names, given, strict=False)), params=variables, train=False).logits

    return apply, model.params["params"] if rest else model.params, inputs


def of_keras(model: Any, *inputs: Any) -> Model:
    """A model of Keras 3."""
    trained, others = [v.path for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]

    def apply(params: Any, *given: Any) -> Any:
        return model.stateless_call([params[path] for path in trained], others, *given, training=False)[0]

    return apply, {v.path: v.value for v in model.trainable_variables}, inputs


def application(name: str, **settings: Any) -> Model:
    """A network of keras.applications."""
    settings |= {"weights": None, "classes": 10, "input_shape": (64, 64, 3), "classifier_activation": None}
    return of_keras(getattr(keras.applications, name)(**settings), images(64, 64, 3))


def recurrent(*layers: Any) -> Model:
    """Recurrent layers of Keras between embedded tokens and classes."""
    ends = keras.layers.Embedding(100, 64), keras.layers.Dense(10)
    return of_keras(keras.Sequential([keras.layers.Input((48,), dtype="int32"), ends[0], *layers, ends[1]]), tokens())


def of_equinox(model: Any, inputs: Any) -> Model:
    """A module of Equinox."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, (inputs,)


def equinox_cnn() -> Model:
    """The network of Equinox's tutorial, wider."""
    keys, relu = jax.random.split(jax.random.key(0), 4), eqx.nn.Lambda(jax.nn.relu)
    layers = [eqx.nn.Conv2d(1, 32, 4, key=keys[0]), eqx.nn.MaxPool2d(2), relu, eqx.nn.Lambda(jnp.ravel)]
    layers += [eqx.nn.Linear(32 * 24 * 24, 128, key=keys[1]), eqx.nn.Lambda(jax.nn.sigmoid)]
    layers += [eqx.nn.Linear(128, 64, key=keys[2]), relu, eqx.nn.Linear(64, 10, key=keys[3])]
    return of_equinox(eqx.nn.Sequential(layers), images(1, 28, 28))


def of_haiku(build: Callable[..., Any], inputs: Any, **settings: Any) -> Model:
    """A network of haiku.nets."""
    network = hk.without_apply_rng(hk.transform_with_state(lambda x, train: build(**settings)(x, is_training=train)))
    params, state = network.init(jax.random.key(0), inputs, True)
    return lambda params, x: network.apply(params, state, x, False)[0], params, (inputs,)


def decoder() -> Model:
    """The decoder of examples/nnx_transformer.py, whose layers are scanned."""
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "nnx_transformer.py"))
    layers, width, rngs = example["LAYERS"], example["WIDTH"], nnx.Rngs(0)
    blocks = nnx.split_rngs(splits=layers)(nnx.vmap(example["Block"]))(rngs)
    shape = [example[name] for name in ("LENGTH", "KEYS", "SIZE")]
    embeddings = {name: nnx.Embed(size, width, rngs=rngs) for name, size in (("embed", 128), ("place", shape[0]))}
    graph, params = nnx.split({**embeddings, "blocks": blocks, "norm": nnx.RMSNorm(width, rngs=rngs)})

    def apply(params: Any, ids: Any) -> Any:
        model = nnx.merge(graph, params)
        x = model["embed"](ids) + model["place"](jnp.arange(ids.shape[1]))
        x, _ = model["blocks"](x, jnp.zeros((ids.shape[0], layers, 2, *shape)), 0)
        return model["embed"].attend(model["norm"](x))

    return apply, params, (tokens(),)


LLAMA = {"vocab_size": 100, "hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 3}
LLAMA |= {"intermediate_size": 320, "max_position_embeddings": 64}
BERT = {
    **LLAMA,
    "max_position_embeddings": 48,
    "type_vocab_size": 1,
}  # what no sentence here reads, the ideal does not count
GROUPED = {**LLAMA, "num_key_value_heads": 2}
GPT = {"vocab_size": 100, "n_embd": 128, "n_layer": 3, "n_head": 4, "n_inner": 320, "n_positions": 48}
BLOOM = {"vocab_size": 100, "hidden_size": 128, "n_layer": 3, "n_head": 4}
T5 = {"vocab_size": 100, "d_model": 128, "d_kv": 32, "d_ff": 320, "num_layers": 3, "num_heads": 4}
RESNET = {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 2, 2]}

MODELS: dict[str, Callable[[], Model]] = {
    "transformers: BERT": partial(hugging_face, "Bert", "ForSequenceClassification", tokens(), **BERT),
    "transformers: RoBERTa": partial(
        hugging_face, "Roberta", "ForSequenceClassification", tokens(), **(BERT | {"max_position_embeddings": 50})
    ),
    "transformers: GPT-2": partial(hugging_face, "GPT2", "LMHeadModel", tokens(), **GPT),
    "transformers: GPT-J": partial(hugging_face, "GPTJ", "ForCausalLM", tokens(), rotary_dim=16, **GPT),
    "transformers: BLOOM": partial(hugging_face, "Bloom", "ForCausalLM", tokens(), **BLOOM),
    "transformers: Llama": partial(hugging_face, "Llama", "ForCausalLM", tokens(), **GROUPED),
    "transformers: Mistral": partial(hugging_face, "Mistral", "ForCausalLM", tokens(), **GROUPED),
    "transformers: Gemma": partial(hugging_face, "Gemma", "ForCausalLM", tokens(), head_dim=32, **GROUPED),
    "transformers: T5": partial(hugging_face, "T5", "ForConditionalGeneration", tokens(), tokens(16), **T5),
    "transformers: ViT": partial(
        hugging_face, "ViT", "ForImageClassification", images(3, 64, 64), image_size=64, patch_size=8, **LLAMA
    ),
    "transformers: ResNet": partial(hugging_face, "ResNet", "ForImageClassification", images(3, 64, 64), **RESNET),
    "Keras: MobileNetV2": partial(application, "MobileNetV2", alpha=0.35),
    "Keras: EfficientNetB0": partial(application, "EfficientNetB0"),
    "Keras: ResNet50": partial(application, "ResNet50"),
    "Keras: LSTM and GRU": lambda: recurrent(keras.layers.LSTM(96, return_sequences=True), keras.layers.GRU(64)),
    "Equinox: MLP": lambda: of_equinox(eqx.nn.MLP(64, 10, 256, 3, key=jax.random.key(0)), images(64)),
    "Equinox: CNN of its tutorial": equinox_cnn,
    "Haiku: ResNet18": partial(of_haiku, hk.nets.ResNet18, images(64, 64, 3), num_classes=10),
    "Haiku: MobileNetV1": partial(of_haiku, hk.nets.MobileNetV1, images(64, 64, 3), num_classes=10),
    "NNX: decoder of examples": decoder,
}
