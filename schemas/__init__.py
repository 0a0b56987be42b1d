"""The contract between the services and with the systems around them: topics, envelope and events."""
