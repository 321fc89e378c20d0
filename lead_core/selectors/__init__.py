"""Rules that choose what to train on next, one file each, all behind `contract.Selector`."""

from __future__ import annotations

from lead_core.errors import LeadError
from lead_core.selectors import (
    full,
    idu,
    ifd,
    informative,
    informative_without,
    iterative,
    lead,
    lead_paper,
    lead_without,
    longest,
    loss,
    random,
    random_ifd,
    stratified,
)
from lead_core.selectors.contract import (
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    SelectionState,
    Selector,
)

__all__ = [
    "SELECTORS",
    "Picks",
    "PoolView",
    "Quota",
    "SelectionSettings",
    "SelectionState",
    "Selector",
    "get_selector",
    "on_any_scores",
]

SELECTORS: dict[str, Selector] = {
    selector.name: selector
    for selector in (
        informative.SELECTOR,
        *informative_without.SELECTORS,
        lead.SELECTOR,
        lead_paper.SELECTOR,
        *lead_without.SELECTORS,
        iterative.SELECTOR,
        random.SELECTOR,
        random_ifd.SELECTOR,
        stratified.SELECTOR,
        longest.SELECTOR,
        loss.SELECTOR,
        ifd.SELECTOR,
        idu.SELECTOR,
        full.SELECTOR,
    )
}


def get_selector(name: str) -> Selector:
    """Return the selector called `name`, or a LeadError that lists the known ones."""
    if name not in SELECTORS:
        raise LeadError(
            f"params.yaml: select.selector must be one of {', '.join(sorted(SELECTORS))}, got {name!r}"
        )
    return SELECTORS[name]


def on_any_scores() -> list[str]:
    """Return the names of the selectors that may work with the scores of another model, sorted."""
    return sorted(name for name, rule in SELECTORS.items() if not rule.starts_from_losses)
