"""Which model makes the offline pass: the one that is trained, or another in its place.

A small model's IFD ranks records much as a large one's does, for a fraction of the cost: Li et al.,
2024, "Superfiltering" (arXiv 2402.00530).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lead_core.assets import ResolvedModel, resolve_model
from lead_core.errors import LeadError
from lead_core.params import Params


def resolve_scoring_model(params: Params) -> ResolvedModel:
    """Bring the model that scores onto this machine, as `resolve_model` does."""
    with blamed_on_score_model(params):
        return resolve_model(params.scoring_model.name, params.scoring_model.revision)


@contextlib.contextmanager
def blamed_on_score_model(params: Params) -> Iterator[None]:
    """Let a LeadError of the block name `score.model.name`, not `model.name`, where it means that."""
    try:
        yield
    except LeadError as error:
        if params.score.model is None:
            raise
        raise type(error)(str(error).replace("model.name", "score.model.name")) from error
