"""Scheduling: opens an engagement for a confirmed match and places its sessions on real calendars."""
