"""Images changed by random operations, and two of them learned as one."""

import numpy as np
import pytest
import torch
from runs import IMAGE_LABELS, IMAGES, run, spec_of, table_for, write
from torch.nn import functional

from learning import random_operations
from learning.augmentation import PHOTO_RANDOM, augment
from learning.preparation import prepare
from learning.random_operations import OPERATIONS


def photographs(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(20, 230, (count, 3, 12, 16), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_nothing_at_no_strength_and_much_at_full(name):
    image_NCHW = photographs(4).float()
    torch.manual_seed(0)
    none, full = (OPERATIONS[name](image_NCHW, torch.full((4,), strength)) for strength in (0.0, 1.0))
    assert none.shape == full.shape == image_NCHW.shape
    assert torch.allclose(none, image_NCHW, atol=1e-3)
    assert (full - image_NCHW).abs().mean() > 3
    grey = OPERATIONS[name](image_NCHW[:, :1], torch.ones(4))
    assert torch.isfinite(grey).all()


def test_each_image_has_operations_of_its_own_that_follow_from_the_seed():
    same = photographs(1).expand(40, -1, -1, -1)
    torch.manual_seed(3)
    changed = random_operations.apply(same, 2)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert len(torch.unique(changed.flatten(1), dim=0)) > 30
    assert torch.equal(random_operations.apply(same, 0), same.float())
    torch.manual_seed(3)
    assert torch.equal(random_operations.apply(same, 2), changed)
    assert not torch.equal(augment(same, PHOTO_RANDOM), changed)


class Watched:
    """A network that remembers what it was shown."""

    def __init__(self, network):
        self.network, self.training, self.shown = network, True, []

    def __call__(self, batch):
        self.shown.append(batch["image_BCHW"])
        return self.network(batch)


@pytest.fixture(params=[IMAGES, IMAGE_LABELS])
def prepared(request, tmp_path):
    rows = write(table_for(request.param, 40), tmp_path / "rows.arrow")
    config = {"augmentation": "none", **({"label_smoothing": 0.0} if request.param == IMAGES else {})}
    spec = spec_of(request.param, task_config=config, split={"validation": 0.0})
    return prepare(spec, {"train": rows}, device=torch.device("cpu"))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@torch.no_grad()
def test_the_loss_is_that_of_both_targets_by_how_much_there_is_of_each(prepared, mix):
    design, network = prepared.design, prepared.network.eval()
    state = design.targets.model_copy(update={"mix": mix})
    batch = next(prepared.train.batches(torch.arange(40), 16))
    name = "target_BK" if "target_BK" in batch else "target_B"
    image_BCHW, target_B = batch["image_BCHW"].float(), batch[name].float()
    seen = set()
    for seed in range(12):
        watched = Watched(network)
        torch.manual_seed(seed)
        loss = design.task.loss(watched, batch, state)
        torch.manual_seed(seed)
        other_B = torch.randperm(16)
        (mixed_BCHW,) = watched.shown  # the network computes once
        own, other = image_BCHW, image_BCHW[other_B]
        if mix == "mixup":
            differ = own != other
            share = float(((mixed_BCHW - other) / (own - other))[differ].median())
            assert torch.allclose(mixed_BCHW, share * own + (1 - share) * other, atol=1e-2)
        else:
            foreign = ((mixed_BCHW != own).any(1) & (mixed_BCHW == other).all(1)).any(0)
            rows, columns = foreign.any(1).nonzero().squeeze(1), foreign.any(0).nonzero().squeeze(1)
            inside = torch.zeros_like(foreign)
            if len(rows):
                inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            assert torch.equal(mixed_BCHW, torch.where(inside, other, own))
            share = 1 - float(inside.float().mean())
        soft = share * target_B + (1 - share) * target_B[other_B]
        outputs = network({**batch, "image_BCHW": mixed_BCHW})
        expected = functional.binary_cross_entropy_with_logits(outputs.view_as(soft), soft)
        assert float(loss) == pytest.approx(float(expected), rel=2e-3)
        seen.add(round(share, 3))
    assert len(seen) > 5
    watched.training = False
    plain = design.task.loss(watched, batch, state)
    assert torch.equal(watched.shown[-1], batch["image_BCHW"])
    assert plain == design.task.loss(network, batch, design.targets)


def test_training_with_both_follows_from_the_seed(tmp_path):
    rows = write(table_for(IMAGES, 40), tmp_path / "rows.arrow")
    config = {"augmentation": "random", "mix": "both"}
    spec = spec_of(IMAGES, task_config=config, hyperparameters={"max_steps": 12, "batch_size": 8}, seed=4)
    one, two = (run(spec, {"train": rows}, tmp_path / name) for name in "ab")
    assert one.metrics == two.metrics
    assert np.isfinite(one.metrics["train"]["loss"])
    plain = run(spec.model_copy(update={"task_config": {"augmentation": "random"}}), {"train": rows}, tmp_path / "c")
    assert plain.metrics != one.metrics
