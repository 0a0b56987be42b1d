"""Apache Kafka and PostgreSQL on this machine without containers; `servers` is the way in."""
