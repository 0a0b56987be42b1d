"""Counts what the programme does and tells the whole story of one request; decides nothing for anybody else."""
