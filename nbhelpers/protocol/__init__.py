"""The study's protocol: scenario cells, what compares them, and the one tidy table that holds every number."""
