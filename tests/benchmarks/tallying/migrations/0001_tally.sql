CREATE TABLE tally (
    key text PRIMARY KEY, events bigint NOT NULL, attendees bigint NOT NULL, latest bigint NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE tally IS 'What a contender of the race has counted of each key.';
