"""The words that go with HTTP's statuses."""

from __future__ import annotations

from http import HTTPStatus

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
