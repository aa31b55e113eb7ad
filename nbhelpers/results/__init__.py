"""The tidy table: findings in, rows out; written by `table`, read by `numbers`, shown by `views`."""
