-- The outbox holds records as they go on the wire, several in a row.

DO $$ BEGIN
    IF EXISTS (SELECT FROM runtime.outbox) THEN
        RAISE EXCEPTION 'facts wait in the outbox in the form of an older release: let that release publish them first';
    END IF;
END $$;

DROP TABLE runtime.outbox;

CREATE TABLE runtime.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text    NOT NULL,
    events     integer NOT NULL CHECK (events > 0),
    records    bytea   NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (toast_tuple_target = 8160);
-- Bytes of a row stay in its page where they fit, and are never compressed: they are read once, soon.
ALTER TABLE runtime.outbox ALTER COLUMN records SET STORAGE EXTERNAL;
COMMENT ON TABLE runtime.outbox IS
    'Committed facts on their way to Kafka, in id order; the relay deletes what the broker has acknowledged.';
COMMENT ON COLUMN runtime.outbox.records IS
    'Records of one topic in their order, each behind the hash of its key, packed in MessagePack.';
