"""What holds a backbone back: low-rank additions, layers that join in later, smaller steps below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CLASSES, IMAGES, TEXTS, TRANSLATING, WRITING, Recorder, run, saved, spec_of, table_for, write

from learning import checkpoint
from learning.config import Split
from learning.device import choose_device, pin
from learning.errors import InvalidConfig
from learning.interfaces import Batch
from learning.low_rank import LEFT, RIGHT
from learning.model import load, merged
from learning.parameter_groups import layers_of
from learning.prediction import Predictor
from learning.preparation import prepare


def held_back(task: str, tmp_path: Path, architecture: str, **hyperparameters: Any) -> Any:
    tables = {"train": write(table_for(task), tmp_path / "rows.arrow")}
    given = {"epochs": 3, "batch_size": 10, "learning_rate": 1e-2, "evaluate_every_epochs": 1, **hyperparameters}
    return spec_of(task, architecture=architecture, hyperparameters=given, split={"validation": 0.2}), tables


def one_batch(result: Any) -> Batch:
    batch: Batch = next(iter(result.prepared.train.everything()))
    return batch


@pytest.mark.parametrize("architecture", ["bert", "gpt"])
def test_additions_are_merged_and_nothing_else_has_moved(architecture: str, tmp_path: Path) -> None:
    spec, tables = held_back(TEXTS, tmp_path, architecture, epochs=1)
    base = run(spec, tables, tmp_path / "base")
    directory = saved(base, tmp_path / "model")
    spec, tables = held_back(TEXTS, tmp_path, architecture, lora_rank=3)
    result = run(spec, tables, tmp_path / "lora", base=directory)
    network, weights = result.prepared.network.eval(), result.outcome.weights
    prefix = f"{network.backbone.prefix}."

    # All of the base model's weights are as they were, bit for bit; the additions are not.
    frozen = {name: tensor for name, tensor in base.outcome.weights.items() if name.startswith(prefix)}
    assert all(torch.equal(weights[name], tensor) for name, tensor in frozen.items())
    added = [tensor for name, tensor in weights.items() if name.endswith(LEFT)]
    assert len(added) == {"bert": 12, "gpt": 8}[architecture]
    assert all(tensor.abs().max() > 0 for tensor in added)
    kept = checkpoint.read(result.outcome.checkpoint)
    assert {name for name in kept.weights if name.endswith((LEFT, RIGHT))}  # the checkpoint has them apart

    plain, weights = merged(result.prepared.design, weights)
    assert plain.low_rank is None
    twin = plain.build().eval()
    twin.load_state_dict(weights)
    batch = one_batch(result)
    with torch.no_grad():
        adapted = result.prepared.design.task.predict(network, batch, result.prepared.design.targets)
        torch.testing.assert_close(plain.task.predict(twin, batch, plain.targets), adapted, atol=1e-5, rtol=0)
        before = plain.build().eval()
        before.load_state_dict({**weights, **frozen})
        assert (plain.task.predict(before, batch, plain.targets) - adapted).abs().max() > 1e-3  # they do something

    # Saved as it is, it is merged where it is read.
    whole = saved(result, tmp_path / "unmerged")
    assert load(whole)[0].low_rank is None
    assert Predictor(whole).predict(["the card works"]).outputs[0]


def test_a_run_with_additions_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    spec, tables = held_back(TEXTS, tmp_path, "bert", lora_rank=2)
    whole = run(spec, tables, tmp_path / "whole")
    stopped = run(spec, tables, tmp_path / "stopped", Recorder(stop_after=4))
    state = checkpoint.read(stopped.outcome.checkpoint)
    resumed = run(spec, tables, tmp_path / "resumed", resume=state, fitted=stopped.prepared.design)
    assert all(torch.equal(resumed.outcome.weights[name], tensor) for name, tensor in whole.outcome.weights.items())


def test_layers_join_in_from_the_head_down(tmp_path: Path) -> None:
    spec, tables = held_back(TEXTS, tmp_path, "bert", unfreeze_every_epochs=1)
    spec = spec.model_copy(update={"split": Split(validation=0.0)})
    first = weights_at_first(spec, tables)
    steps = 4  # of an epoch: 40 rows in batches of 10
    moved = []
    for stop in (steps, steps + 1, 2 * steps, 2 * steps + 1):
        result = run(spec, tables, tmp_path / str(stop), Recorder(stop_after=stop))
        now = checkpoint.read(result.outcome.checkpoint).weights
        layers = names_of(result.prepared.network)
        moved.append([any(not torch.equal(now[name], first[name]) for name in names) for names in layers])
    assert moved == [
        [False, False, False],
        [False, False, True],
        [False, False, True],
        [False, True, True],
    ]


@pytest.mark.parametrize(
    ("task", "architecture", "layers"), [(WRITING, "gpt", 2), (WRITING, "llama", 2), (TRANSLATING, "seq2seq", 2)]
)
def test_without_weights_of_a_head_the_top_layer_begins(
    task: str, architecture: str, layers: int, tmp_path: Path
) -> None:
    spec, tables = held_back(task, tmp_path, architecture, unfreeze_every_epochs=1, epochs=layers + 1)
    spec = spec.model_copy(update={"split": Split(validation=0.0)})
    first = weights_at_first(spec, tables)
    prepared = prepare(spec, tables, device=choose_device("cpu"))
    steps = -(-len(prepared.train) // 10)  # of an epoch
    count = len(layers_of(prepared.network.backbone))
    for stop in (1, steps, steps + 1, layers * steps + 1):
        result = run(spec, tables, tmp_path / str(stop), Recorder(stop_after=stop))
        now = checkpoint.read(result.outcome.checkpoint).weights
        moved = [
            any(not torch.equal(now[name], first[name]) for name in names)
            for names in names_of(result.prepared.network)
        ]
        learning = 1 + (stop - 1) // steps
        assert moved == [False] * (count - learning) + [True] * learning, stop


def test_nothing_to_train_names_what_was_set(tmp_path: Path) -> None:
    spec, tables = held_back(WRITING, tmp_path, "gpt", backbone_learning_rate_factor=0, unfreeze_every_epochs=1)
    with pytest.raises(InvalidConfig, match="nothing to train") as refusal:
        run(spec, tables, tmp_path / "run")
    assert refusal.value.param == "hyperparameters.backbone_learning_rate_factor"
    assert "unfreeze" not in (refusal.value.hint or "")


def batch_norms(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {name: tensor for name, tensor in weights.items() if "running_" in name or "num_batches" in name}
    assert found
    return found


@pytest.mark.parametrize(("task", "architecture"), [(IMAGES, "resnet"), (IMAGES, "vgg")])
def test_a_frozen_backbone_counts_no_means(task: str, architecture: str, tmp_path: Path) -> None:
    spec, tables = held_back(task, tmp_path, architecture, backbone_learning_rate_factor=0)
    first = weights_at_first(spec, tables)
    result = run(spec, tables, tmp_path / "run")
    prefix = f"{result.prepared.network.backbone.prefix}."
    changed = {name for name, tensor in result.outcome.weights.items() if not torch.equal(tensor, first[name])}
    assert changed
    assert not [name for name in changed if name.startswith(prefix)]
    batch_norms(result.outcome.weights)  # it has some


def test_batch_normalisation_counts_from_when_its_layer_joins_in(tmp_path: Path) -> None:
    spec, tables = held_back(IMAGES, tmp_path, "resnet", unfreeze_every_epochs=1, epochs=4)
    spec = spec.model_copy(update={"split": Split(validation=0.0)})
    first = weights_at_first(spec, tables)
    steps = -(-len(prepare(spec, tables, device=choose_device("cpu")).train) // 10)  # of an epoch
    counted = []
    for stop in (steps, steps + 1):
        result = run(spec, tables, tmp_path / str(stop), Recorder(stop_after=stop))
        now = batch_norms(checkpoint.read(result.outcome.checkpoint).weights)
        counted.append(sum(not torch.equal(tensor, first[name]) for name, tensor in now.items()))
    assert counted[0] == 0 < counted[1] < len(now)
    # Stopped where nothing is evaluated in between, it goes on as it would have.
    whole = run(spec, tables, tmp_path / "whole").outcome
    state = checkpoint.read(result.outcome.checkpoint)
    resumed = run(spec, tables, tmp_path / "resumed", resume=state, fitted=result.prepared.design).outcome
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())


def weights_at_first(spec: Any, tables: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Return the weights with which a run begins."""
    pin(spec.seed, 1)
    return prepare(spec, tables, device=choose_device("cpu")).network.state_dict()


def names_of(network: Any) -> list[list[str]]:
    """Return the names of a network's weights by layer of its backbone, the lowest first."""
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [[names[id(parameter)] for parameter in layer] for layer in layers_of(network.backbone)]


def test_later_layers_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    spec, tables = held_back(TEXTS, tmp_path, "bert", unfreeze_every_epochs=1, layer_learning_rate_decay=0.8)
    whole = run(spec, tables, tmp_path / "whole")
    stopped = run(spec, tables, tmp_path / "stopped", Recorder(stop_after=6))
    state = checkpoint.read(stopped.outcome.checkpoint)
    resumed = run(spec, tables, tmp_path / "resumed", resume=state, fitted=stopped.prepared.design)
    assert all(torch.equal(resumed.outcome.weights[name], tensor) for name, tensor in whole.outcome.weights.items())


@pytest.mark.parametrize(("task", "architecture", "layers"), [(IMAGES, "resnet", 3), (CLASSES, "mlp", 2)])
def test_every_family_has_layers(task: str, architecture: str, layers: int, tmp_path: Path) -> None:
    spec, tables = held_back(task, tmp_path, architecture, layer_learning_rate_decay=0.5, epochs=1)
    result = run(spec, tables, tmp_path / "run")
    assert len(layers_of(result.prepared.network.backbone)) >= layers


def test_a_network_without_linear_layers_takes_no_additions(tmp_path: Path) -> None:
    spec, tables = held_back(IMAGES, tmp_path, "resnet", lora_rank=2)
    with pytest.raises(InvalidConfig) as refusal:
        run(spec, tables, tmp_path / "run")
    assert refusal.value.param == "hyperparameters.lora_rank"
