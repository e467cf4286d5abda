"""The kinds of statements, by the types that they contain."""

from __future__ import annotations

from typing import Final

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:sisa-ray:erasure-receipt:v1"
RECTIFICATION_TYPE: Final = "urn:sisa-ray:rectification-receipt:v1"
SITE_PREDICATE_TYPE: Final = "urn:sisa-ray:site-receipt:v1"
NOTHING_FOUND_TYPE: Final = "urn:sisa-ray:nothing-found:v1"
READMISSION_TYPE: Final = "urn:sisa-ray:readmission:v1"
REFUTATION_TYPE: Final = "urn:sisa-ray:constituent-refuted:v1"
PREDICATE_TYPES: Final = frozenset(
    {
        PREDICATE_TYPE,
        RECTIFICATION_TYPE,
        SITE_PREDICATE_TYPE,
        NOTHING_FOUND_TYPE,
        READMISSION_TYPE,
        REFUTATION_TYPE,
    }
)
SUBJECT_NAME: Final = "erasure-request"
