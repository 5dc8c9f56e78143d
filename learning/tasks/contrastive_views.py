"""What pretraining tasks share that compare views: two of an example must be closer than those of any two examples.

Two objectives, together or each alone: views recognise each other among all views of the batch (SimCLR, Chen et al.
2020, arXiv 2002.05709), and each view foretells to which of some prototypes the other one belongs (SwAV, Caron et al.
2020, arXiv 2006.09882). And two that compare no two examples: views are alike, while every number varies over the
batch and no two of them vary together (VICReg, Bardes et al. 2022, arXiv 2105.04906); or a view foretells the other
one, from which no gradient comes (SimSiam, Chen and He 2021, arXiv 2011.10566: BYOL without a second network).
B examples, P width of the space in which views are compared, K prototypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Config
from learning.interfaces import Batch, Features, Network, PackedFeatures
from learning.tasks.pretraining import Pretraining

# Sinkhorn's iterations, and how soft an assignment is before them.
_ITERATIONS, _SOFTNESS = 3, 0.05
_CLUSTER_TEMPERATURE = 0.1
# What VICReg's three terms count, by the paper, and what keeps its square root differentiable at 0.
_ALIKE, _VARYING, _APART, _LEAST_VARIANCE = 25.0, 25.0, 1.0, 1e-4
# How much narrower than its outputs the middle of what foretells a view is, by the paper.
_BOTTLENECK = 4

Pool = Callable[[Any], Tensor]
"""What makes one vector of a backbone's features, (B, D)."""


class ContrastiveViewsConfig(Config):
    """How views are compared."""

    objective: Literal["both", "views", "clusters", "variance", "prediction"] = Field(
        "both",
        description="Views recognise each other (`views`), or each other's cluster (`clusters`), or `both`; or views "
        "of one are alike, by numbers that vary and are not correlated (`variance`), or by foretelling each other "
        "(`prediction`).",
    )
    temperature: float = Field(0.15, gt=0, le=10, description="Divides the similarities of views before the softmax.")
    prototypes: int = Field(128, ge=2, le=16_384, description="Clusters that examples are sorted into, evenly.")
    projection_size: int = Field(128, ge=2, le=4096, description="Width of the space in which views are compared.")


class ProjectionHead(nn.Module):
    """Two layers to a unit vector, and the prototypes, unit vectors too; where variance counts, to any vector.

    Where views foretell each other, the vectors vary over the batch by normalisation, and two more layers foretell.
    """

    def __init__(self, width: int, config: ContrastiveViewsConfig, pool: Pool) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width, config.projection_size)
        self.prototypes_KP = nn.Parameter(functional.normalize(torch.randn(config.prototypes, config.projection_size)))
        self._pool = pool
        self._of_length_1 = config.objective != "variance"
        self.foretell = _foretelling_layers(config.projection_size) if config.objective == "prediction" else None
        self.output_norm = nn.BatchNorm1d(config.projection_size, affine=False) if self.foretell else nn.Identity()

    def forward(self, features: Features | PackedFeatures) -> Tensor:
        """Return vectors, (B, P)."""
        hidden_BD = self.norm(self.hidden(self._pool(features))).relu()
        output_BP = self.output_norm(self.output(hidden_BD)).float()
        return functional.normalize(output_BP, dim=1) if self._of_length_1 else output_BP


class ContrastiveViews(Pretraining):
    """The base of tasks that recognise an example in another view of it; a task says how views are made."""

    def views(self, batch: Batch, state: Any) -> Batch:
        """Return two views of each example: of all of them in order, and then once more of all of them."""
        raise NotImplementedError

    def head(self, width: int, state: Any) -> nn.Module:
        """Return the projection of the mean of the positions."""
        return ProjectionHead(width, state.config, lambda features: features.pooled())

    def loss(self, network: Network, batch: Batch, state: Any) -> Tensor:
        """Return the mean of the objectives over the batch, both ways."""
        head, config = cast("ProjectionHead", network.head), state.config
        # One pass over both views, so that batch normalisation sees them alike.
        first_BP, second_BP = network(self.views(batch, state)).float().chunk(2)
        losses = []
        # Similarities are divided by a small temperature: in bf16 what is left of them would be too coarse to compare.
        with torch.autocast(first_BP.device.type, enabled=False):
            if config.objective in {"both", "views"}:
                losses.append(recognition(first_BP, second_BP, config.temperature))
            if config.objective in {"both", "clusters"}:
                losses.append(_foretelling(first_BP, second_BP, head.prototypes_KP))
            if config.objective == "variance":
                losses.append(varying(first_BP, second_BP))
            if head.foretell is not None:
                told_BP = head.foretell(torch.cat([first_BP, second_BP]))
                losses.append(unforeseen(told_BP, torch.cat([second_BP, first_BP])))
        return torch.stack(losses).mean()


def recognition(first_BP: Tensor, second_BP: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding each view's twin among all other views."""
    views_NP = torch.cat([first_BP, second_BP])
    count = len(views_NP)
    logits_NN = views_NP @ views_NP.T / temperature
    logits_NN = logits_NN.masked_fill(torch.eye(count, dtype=torch.bool, device=logits_NN.device), float("-inf"))
    twin_N = (torch.arange(count, device=logits_NN.device) + count // 2) % count
    return functional.cross_entropy(logits_NN, twin_N)


def varying(first_BP: Tensor, second_BP: Tensor) -> Tensor:
    """Return how far views are from each other, numbers from varying by 1, and pairs of numbers from varying apart."""
    loss = _ALIKE * functional.mse_loss(first_BP, second_BP)
    for views_BP in (first_BP, second_BP):
        centred_BP = views_BP - views_BP.mean(0)
        covariance_PP = centred_BP.T @ centred_BP / max(len(views_BP) - 1, 1)
        variance_P = covariance_PP.diagonal()
        loss = loss + _VARYING / 2 * (1 - (variance_P + _LEAST_VARIANCE).sqrt()).relu().mean()
        loss = loss + _APART / len(variance_P) * (covariance_PP.square().sum() - variance_P.square().sum())
    return loss


def unforeseen(told_BP: Tensor, shown_BP: Tensor) -> Tensor:
    """Return 1 less the cosine of what was foretold to what was shown, which is taken as given."""
    return 1 - functional.cosine_similarity(told_BP, shown_BP.detach()).mean()


def _foretelling_layers(width: int) -> nn.Sequential:
    narrow = max(1, width // _BOTTLENECK)
    first = nn.Linear(width, narrow, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(narrow), nn.ReLU(), nn.Linear(narrow, width))


def _foretelling(first_BP: Tensor, second_BP: Tensor, prototypes_KP: Tensor) -> Tensor:
    """Return the cross-entropy of each view's prototypes by those that the other view was assigned to."""
    prototypes_PK = functional.normalize(prototypes_KP.float(), dim=1).T
    scores_BK = first_BP @ prototypes_PK, second_BP @ prototypes_PK
    told_BK = [functional.log_softmax(scores / _CLUSTER_TEMPERATURE, 1) for scores in scores_BK]
    given_BK = [_assigned(scores.detach()) for scores in reversed(scores_BK)]
    agreed = [(given * told).sum(1).mean() for given, told in zip(given_BK, told_BK, strict=True)]
    return -torch.stack(agreed).mean()


def _assigned(scores_BK: Tensor) -> Tensor:
    """Return a soft assignment in which every example counts as one, every prototype gets as many (Cuturi 2013)."""
    shares_BK = ((scores_BK - scores_BK.max()) / _SOFTNESS).exp()
    for _ in range(_ITERATIONS):
        shares_BK = shares_BK / shares_BK.sum(0, keepdim=True).clamp_min(1e-12)
        shares_BK = shares_BK / shares_BK.sum(1, keepdim=True).clamp_min(1e-12)
    return shares_BK
