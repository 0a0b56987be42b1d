"""Intake: takes submissions, decides which become requests, and says who takes part in the programme."""
