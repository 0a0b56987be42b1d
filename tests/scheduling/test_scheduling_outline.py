"""Matching and scheduling have to agree on which modes bring the expert to the agency."""

import pytest

from schemas.vocabulary import ON_SITE_MODES, DeliveryMode
from services.scheduling.decisions.outline import OUTLINES


@pytest.mark.parametrize("mode", list(DeliveryMode))
def test_an_engagement_has_a_session_on_site_exactly_where_its_mode_is_one_on_site(mode: DeliveryMode) -> None:
    assert any(session.on_site for session in OUTLINES[mode]) == (mode in ON_SITE_MODES)
