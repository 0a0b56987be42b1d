CREATE TABLE counted (key text PRIMARY KEY, version integer NOT NULL, total bigint NOT NULL, said text NOT NULL);
COMMENT ON TABLE counted IS 'How many events of each key were applied, and the order they came in.';
