"""The demonstration: ``make demo`` runs it from a checkout; it is not installed."""
