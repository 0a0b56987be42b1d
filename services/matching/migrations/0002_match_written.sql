-- Before each round it is asked what every expert and partner holds. Who remembers what the round before was told needs only
-- the matches written since. A match therefore carries the number of the transaction that wrote it: unlike a time or a
-- sequence, that says of whatever is not visible yet that it may still come. A trigger sets it, so that no writer can forget
-- to, such as a worker of an older release.

ALTER TABLE match ADD COLUMN written xid8 NOT NULL DEFAULT pg_current_xact_id();
COMMENT ON COLUMN match.written IS 'The transaction that last wrote the match.';

CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.written := pg_current_xact_id();
    RETURN NEW;
END
$$;
CREATE TRIGGER note_writer BEFORE UPDATE ON match FOR EACH ROW EXECUTE FUNCTION note_writer();

CREATE INDEX match_written ON match (written);
CREATE INDEX match_unanswered ON match (request_id) WHERE stage = 'proposed';
