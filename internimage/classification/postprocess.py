"""From logits to `Classification` results."""

from __future__ import annotations

from torch import Tensor

from internimage.types import Classification, Images


def classify(logits: Tensor, images: Images, class_names: tuple[str, ...] | None) -> list[Classification]:
    """Turn (N, K) logits into one result for each image.

    Raises:
        ValueError: a logit is not finite, which means broken weights or a broken input.
    """
    scores = logits.float().softmax(dim=-1).cpu()
    broken = (~scores.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the model answered with NaN or infinite scores for images {broken} of the batch; "
            "check the weights (NaN parameters?) and, in half precision, try float32"
        )
    return [
        Classification(row, class_names, original_hw)
        for row, original_hw in zip(scores, images.original_hw, strict=True)
    ]
