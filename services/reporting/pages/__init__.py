"""What reporting shows: the programme in numbers and the story of one request, each as a page and as JSON."""

from typing import Final

from services.reporting.pages import programme, request
from services.runtime.service import Page

PAGES: Final = (
    Page("/", programme.programme_page),
    Page("/requests", request.request_page),
    Page("/requests/{id}", request.request_page),
    Page("/api/counts", programme.counts),
    Page("/api/steps", programme.steps),
    Page("/api/requests/{id}", request.request),
)
