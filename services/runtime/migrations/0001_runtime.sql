-- What the runtime keeps in each service's own database, so that one transaction moves an event from Kafka's log into
-- the service's state and its consequences into the outbox.

CREATE TABLE runtime.consumer_position (
    topic        text   NOT NULL,
    "partition"  integer NOT NULL,
    first_offset bigint NOT NULL,
    next_offset  bigint NOT NULL,
    epoch        bigint NOT NULL DEFAULT 1,
    owner        text   NOT NULL,
    applied      bigint NOT NULL DEFAULT 0,
    duplicate    bigint NOT NULL DEFAULT 0,
    parked       bigint NOT NULL DEFAULT 0,
    ignored      bigint NOT NULL DEFAULT 0,
    absent       bigint NOT NULL DEFAULT 0,
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, "partition"),
    CHECK (next_offset - first_offset = applied + duplicate + parked + ignored + absent)
) WITH (fillfactor = 50);
COMMENT ON TABLE runtime.consumer_position IS
    'Authority on what has been handled: the next offset to read of each partition, and the epoch of its owner. '
    'absent counts offsets that hold no event, such as markers of other systems'' transactions.';

CREATE TABLE runtime.stream_seen (
    topic    text   NOT NULL,
    key      text   NOT NULL,
    sequence bigint NOT NULL,
    blocked  text   CHECK (blocked IN ('gap', 'refused')),
    traceparent text,
    PRIMARY KEY (topic, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE runtime.stream_seen IS
    'Last sequence handled of each key and the trace it belongs to; blocked while an event of the key is parked and '
    'those behind it have to wait.';

CREATE TABLE runtime.message_seen (
    source  text NOT NULL,
    id      text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, id)
);
COMMENT ON TABLE runtime.message_seen IS
    'CloudEvents source and id of messages without a sequence, each handled once.';

CREATE TABLE runtime.stream_out (
    topic    text   NOT NULL,
    key      text   NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE runtime.stream_out IS
    'Last sequence published of each key. Its row is locked before outbox rows of the key are written.';

CREATE TABLE runtime.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text  NOT NULL,
    key        bytea,
    headers    bytea NOT NULL,
    value      bytea,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE runtime.outbox IS
    'Committed facts on their way to Kafka, in id order; the relay deletes what the broker has acknowledged.';

CREATE TABLE runtime.parked (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text    NOT NULL,
    "partition" integer NOT NULL,
    "offset"    bigint  NOT NULL,
    key         text,
    raw_key     bytea,
    headers     bytea   NOT NULL,
    value       bytea,
    recorded_at timestamptz NOT NULL,
    reason      text    NOT NULL,
    detail      text    NOT NULL,
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    state       text    NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'redrive', 'discard')),
    UNIQUE (topic, "partition", "offset")
);
CREATE INDEX parked_by_key ON runtime.parked (topic, key);
COMMENT ON TABLE runtime.parked IS
    'Events that could not be handled, with their original bytes, and the later events of the same key behind them.';

CREATE TABLE runtime.lease (
    name       text PRIMARY KEY,
    epoch      bigint NOT NULL,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE runtime.lease IS 'Who leads the relay, by the database''s clock; every change of leader has a new epoch.';

CREATE TABLE runtime.round (
    name text PRIMARY KEY,
    run  bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE runtime.round IS 'The row a round locks while it runs, and how many times it has run.';
