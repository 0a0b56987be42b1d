CREATE TABLE counted (
    key text PRIMARY KEY, version integer NOT NULL, total bigint NOT NULL, said text NOT NULL, asked boolean NOT NULL
);
COMMENT ON TABLE counted IS
    'How many events of each key were applied, the order they came in, and whether the round was asked to announce it.';
