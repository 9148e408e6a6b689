"""The report of a conversion: as a value (JSON), as text, and as one HTML page."""

from converters.report.html import render_html
from converters.report.model import Report, VariantSummary
from converters.report.text import render_text

__all__ = ["Report", "VariantSummary", "render_html", "render_text"]
