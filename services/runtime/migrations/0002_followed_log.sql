-- Which log the positions are places in: a topic that is deleted and made again, or that gets more partitions, keeps
-- its name.

CREATE TABLE runtime.followed_log (
    topic      text PRIMARY KEY,
    id         uuid NOT NULL,
    partitions integer NOT NULL,
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE runtime.followed_log IS
    'Kafka''s id of each topic that is read, and its number of partitions, as they were when it was first read.';
