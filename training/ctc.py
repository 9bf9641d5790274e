"""The CTC loss, which never becomes NaN (Graves et al., Connectionist Temporal Classification, 2006)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ocrstream.models.crnn.charset import BLANK


def ctc_loss(logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """The mean loss of a batch, each crop's divided by its label's length.

    A label with more characters (and blanks between like ones) than there are timesteps cannot be written at all; its
    loss would be infinite. Such crops are made wider before they come here; one that comes counts as nothing.

    Args:
        logits: ``(N, T, C)`` of any float type; computed in float32.
        targets: the labels one after the other, ``int64``.
        lengths: ``(N,) int64``, each at least 1.
    """
    steps = torch.full((logits.shape[0],), logits.shape[1], dtype=torch.int64)
    log_probabilities = functional.log_softmax(logits.float(), dim=2).transpose(0, 1)
    losses = functional.ctc_loss(
        log_probabilities, targets, steps, lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    return (losses / lengths.to(losses.device).clamp(min=1)).mean()
