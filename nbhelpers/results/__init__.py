"""The tidy table: ``table`` writes it, ``numbers`` reads it, and ``views`` shows it."""
