"""How far an expert's home is from the agency, and the days the way takes."""

from math import asin, cos, radians, sin, sqrt
from typing import Final

from schemas.vocabulary import Place

_EARTH_KM: Final = 6371.0088
"""Mean radius of the Earth (IUGG)."""

_SAME_DAY_KM: Final = 100
_ONE_DAY_KM: Final = 3000
"""Up to 100 km is driven on the day itself; beyond 3,000 km a flight and its connections take two days. Sibling
programmes count 1 to 2 travel days for an event on site."""


def distance_km(one: Place, other: Place) -> float:
    """Great-circle distance by the haversine formula."""
    latitudes = radians(one.latitude), radians(other.latitude)
    half_chord = (
        sin((latitudes[1] - latitudes[0]) / 2) ** 2
        + cos(latitudes[0]) * cos(latitudes[1]) * sin(radians(other.longitude - one.longitude) / 2) ** 2
    )
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(half_chord)))


def travel_days(distance: float | None) -> int:
    """Days of travel before, and again after, a session on site; one where the agency's place is not known."""
    if distance is None:
        return 1
    if distance <= _SAME_DAY_KM:
        return 0
    return 1 if distance <= _ONE_DAY_KM else 2
