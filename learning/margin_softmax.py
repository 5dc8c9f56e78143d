"""The loss of embeddings whose subjects are to be told apart by an angle: a softmax with a margin.

B examples, E width of the embedding, C subjects that are learned from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def margin_softmax(
    embedding_BE: Tensor, centres_CE: Tensor, subject_B: Tensor, *, scale: float, margin: float
) -> Tensor:
    """Return the mean cross-entropy of finding each embedding's subject by its angle to the subjects' centres.

    The own angle counts as `margin` radians wider than it is, and cosines are multiplied by `scale` (ArcFace, Deng et
    al. 2019, arXiv 1801.07698). Lengths are of no account. Where the wider angle would pass 180 degrees, the logit
    falls on as a straight line instead of rising again.
    """
    # Cosines times a large scale: in bf16 what is left of them would be too coarse to tell subjects apart.
    with torch.autocast(embedding_BE.device.type, enabled=False):
        unit_BE = functional.normalize(embedding_BE.float(), dim=1)
        cosine_BC = unit_BE @ functional.normalize(centres_CE.float(), dim=1).T
        own_B1 = cosine_BC.gather(1, subject_B.unsqueeze(1))
        # The slope of a root is endless at 0, where an embedding is its subject's centre.
        sine_B1 = (1 - own_B1.square()).clamp_min(1e-6).sqrt()
        wider_B1 = own_B1 * math.cos(margin) - sine_B1 * math.sin(margin)
        beyond_B1 = own_B1 - margin * math.sin(margin)
        own_B1 = torch.where(own_B1 > math.cos(math.pi - margin), wider_B1, beyond_B1)
        logits_BC = scale * cosine_BC.scatter(1, subject_B.unsqueeze(1), own_B1)
        return functional.cross_entropy(logits_BC, subject_B)
