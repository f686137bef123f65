"""Fine-tuning of a causal language model by LoRA: low-rank updates beside frozen weights.

Method: Hu et al., 2021, arXiv:2106.09685. PEFT puts the matrices into the model; the loop is `fit_torch`, so a killed
training resumes exactly, and its checkpoints hold the adapter alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mainspring.core.errors import Corrupt, Invalid, MissingExtra
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.tensors import import_torch, weights_digest

IGNORED = -100  # label of a token that is not to be predicted, as in PyTorch's cross-entropy
_LORA, _BASE = ".lora_", ".base_layer"


def fit_lora(
    base: Any,
    rows: tuple[Any, Any],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    lr: float = 2e-4,
    optimiser: Callable[[list[Any]], Any] | None = None,
    validation: tuple[Any, Any] | None = None,
    seed: int | None = None,
    run: Any = None,
    **settings: Any,
) -> Any:
    """Fine-tune a causal language model of transformers by LoRA, and return it with its adapter, as a model of PEFT.

    The base gets the adapter's matrices in place; its own weights are frozen and do not change.

    Args:
        base: A model whose `forward(input_ids=)` returns `logits` of the next token.
        rows: `(input_ids, labels)`, int64 of shape (rows, tokens) each. The label of a token is the token itself, or
            -100 where it is not to be predicted: the prompt, and the padding, which is at the end.
        rank, alpha: The update of a matrix is `alpha / rank * B @ A`, with `rank` columns in B.
        dropout: Share of the inputs of the adapter that is dropped in training.
        targets: Names of the linear layers that get an adapter, such as "q_proj"; by default those of PEFT for the
            kind of model.
        optimiser: Makes the optimiser of the given parameters, instead of AdamW with `lr`.
        validation: Rows like `rows`, evaluated after each epoch.
        seed, run, settings: Those of `fit_torch`: epochs, batch_size, stopping, clip_norm, checkpoints and others.

    Raises:
        Invalid: The rows, a layer or a setting is impossible; also as `fit_torch` does.
        MissingExtra: PEFT is not installed.
    """
    peft, torch = import_peft("Fine-tuning by LoRA"), import_torch()
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise Invalid(f"An adapter of rank {rank}, alpha {alpha} and dropout {dropout} is impossible.")
    if any(_LORA in name for name, _ in base.named_parameters()):
        raise Invalid("The model has an adapter already.", fix="load the base again.")
    drawn = seed if seed is not None else run.seed if run is not None else 0
    torch.manual_seed(drawn)  # the matrices A are random
    with _quiet():
        try:
            config = peft.LoraConfig(
                task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=dropout,
                target_modules=None if targets is None else [*targets],
            )  # fmt: skip
            model = peft.get_peft_model(base, config)
        except ValueError as error:
            raise Invalid(f"{str(error).splitlines()[0][:200]}", fix="name linear layers: targets=[...].") from error
    trained = [each for each in model.parameters() if each.requires_grad]
    made = torch.optim.AdamW(trained, lr=lr) if optimiser is None else optimiser(trained)
    fit_torch(
        _predicting(torch, model),
        _checked(torch, rows),
        _loss,
        optimiser=made,
        validation=None if validation is None else _checked(torch, validation),
        metric=None if validation is None else _loss,
        seed=drawn,
        run=run,
        **settings,
    )
    return model.eval()


def evaluate_lora(model: Any, rows: tuple[Any, Any], *, batch_size: int = 16) -> dict[str, float]:
    """Return loss (nats a token), perplexity and accuracy over the tokens to predict, with the adapter, and the same
    of the base alone, as `base_loss` and others.
    """
    torch = import_torch()
    checked, predicting = Rows(_checked(torch, rows)), _predicting(torch, model).eval()
    device = next(model.parameters()).device
    found: dict[str, float] = {}
    with torch.no_grad():
        for prefix in ("", "base_"):
            with model.disable_adapter() if prefix else _same():
                parts = [predicting(*inputs) for inputs, _ in checked.in_order(batch_size, device)]
            loss, tokens, right = torch.cat(parts).double().sum(0).tolist()
            found[f"{prefix}loss"], found[f"{prefix}accuracy"] = loss / tokens, right / tokens
            found[f"{prefix}perplexity"] = math.exp(min(loss / tokens, 700.0))
    return found


def log_probabilities(model: Any, ids: Any) -> Any:
    """Return the log-probability of each token but the first, given those before it, float32 of shape (rows, tokens -
    1).
    """
    torch = import_torch()
    with torch.no_grad():
        ids = torch.as_tensor(ids).to(next(model.parameters()).device)
        logits = model(input_ids=ids).logits[:, :-1].float()
        return -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()


def base_digest(model: Any) -> str:
    """Return the digest of a model's own weights, whether or not it has an adapter."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    own = {name.replace(_BASE, ""): weights for name, weights in inner.state_dict().items() if _LORA not in name}
    return weights_digest(own)


def adapter_file(model: Any) -> bytes:
    """Return the adapter's matrices as a safetensors file."""
    peft = import_peft("Storing an adapter")
    from safetensors.torch import save

    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def adapter_settings(model: Any) -> dict[str, Any]:
    """Return what an adapter has beside its matrices: rank, alpha, dropout, layers.

    Raises:
        Invalid: The model has no adapter, several, or one of another kind than `fit_lora` makes.
    """
    configs = getattr(model, "peft_config", {})
    config: Any = configs.get("default") if len(configs) == 1 else None
    other = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform")
    if type(config).__name__ != "LoraConfig" or config.bias != "none" or any(getattr(config, each) for each in other):
        raise Invalid(
            f"{type(model).__name__} is not a model with one plain adapter of LoRA.", fix="make it by ms.fit_lora."
        )
    return {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout,
            "targets": sorted(config.target_modules)}  # fmt: skip


def with_adapter(base: Any, content: bytes, settings: dict[str, Any]) -> Any:
    """Return a base with a stored adapter, in evaluation mode; the base gets it in place.

    Raises:
        Corrupt: The matrices do not fit the base.
        MissingExtra: PEFT is not installed.
    """
    peft = import_peft("Loading an adapter")
    from safetensors.torch import load

    with _quiet():
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", r=settings["rank"], lora_alpha=settings["alpha"], lora_dropout=settings["dropout"],
            target_modules=settings["targets"], inference_mode=True,
        )  # fmt: skip
        try:
            model = peft.get_peft_model(base, config)
            found = peft.set_peft_model_state_dict(model, load(content))
        except (ValueError, RuntimeError) as error:
            raise Corrupt(f"The adapter does not fit {type(base).__name__}: {str(error).splitlines()[0]}.") from error
    missing = [name for name in found.missing_keys if _LORA in name]
    if missing or found.unexpected_keys:
        raise Corrupt(f"The adapter does not fit the layers of {type(base).__name__}: {[*missing, *found[1]][:3]}.")
    return model.eval()


def import_peft(what: str) -> Any:
    """Import and return the module `peft`.

    Raises:
        MissingExtra: PEFT is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "lora") from error
    return peft


@contextmanager
def _same() -> Iterator[None]:
    yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence notes about names that PEFT still uses of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _checked(torch: Any, rows: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
    """Return the rows for the loop: ids and labels as inputs, and a target that nothing uses."""
    ids, labels = (torch.as_tensor(part) for part in rows)
    if ids.ndim != 2 or ids.shape != labels.shape or ids.dtype != torch.int64 or labels.dtype != torch.int64:
        raise Invalid(
            f"The rows are {ids.dtype} of shape {tuple(ids.shape)} and {labels.dtype} of {tuple(labels.shape)}.",
            fix="give (input_ids, labels), int64 of shape (rows, tokens).",
        )
    predicted = labels[:, 1:] != IGNORED
    if not len(ids) or not bool(predicted.any(1).all()):
        raise Invalid("There are no rows, or one without a token to predict.", fix="leave such rows out.")
    if not bool((labels[:, 1:] == ids[:, 1:])[predicted].all()):
        raise Invalid(
            "A label is neither its own token nor -100.", fix="give labels as they are: the loop shifts them."
        )
    return (ids, labels), torch.zeros(len(ids))


def _predicting(torch: Any, model: Any) -> Any:
    """Return a module that gives, for each row, the loss, the tokens to predict and those predicted right."""

    class Predicting(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, labels: Any) -> Any:
            logits, wanted = self.model(input_ids=ids).logits[:, :-1].float(), labels[:, 1:]
            entropy = torch.nn.functional.cross_entropy
            lost = entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
            right = (logits.argmax(2) == wanted).sum(1)
            return torch.stack([lost.sum(1), (wanted != IGNORED).sum(1).float(), right.float()], 1)

    return Predicting()


def _loss(outputs: Any, _targets: Any) -> Any:
    return outputs[:, 0].sum() / outputs[:, 1].sum()
