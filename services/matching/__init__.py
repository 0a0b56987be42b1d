"""Matching: proposes a partner and an expert for each request in the pool, and says why, or why not."""
