"""Replaces personal data with placeholders before a text leaves, and restores it in what comes back."""

from ._anonymize import (
    AnonymizeError,
    Anonymizer,
    DetectionError,
    Redacted,
    Span,
    StreamRestorer,
    Vault,
    __version__,
)

__all__ = [
    "AnonymizeError",
    "Anonymizer",
    "DetectionError",
    "Redacted",
    "Span",
    "StreamRestorer",
    "Vault",
    "__version__",
]
