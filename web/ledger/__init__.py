"""The ledger: the database of builds, launches and findings. Only web writes it."""

from __future__ import annotations

from web.ledger.ledger import Ledger
from web.ledger.records import BuildRecord, FindingRecord, LaunchRecord, Remembered

__all__ = ["BuildRecord", "FindingRecord", "LaunchRecord", "Ledger", "Remembered"]
