"""The independent checker: Kafka's logs and the tables held against each other, without the code of the services."""
