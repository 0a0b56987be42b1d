-- How far the retention has come, and the limit of what it forgets.

CREATE TABLE runtime.retention (
    swept     text PRIMARY KEY,
    next_page bigint NOT NULL DEFAULT 0 CHECK (next_page >= 0),
    removed   bigint NOT NULL DEFAULT 0,
    due_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE runtime.retention IS
    'The pass over a table whose rows go by age: the page it has come to, when it is due, and the rows all passes have '
    'removed. A batch locks the row.';

COMMENT ON TABLE runtime.message_seen IS
    'CloudEvents source and id of messages without a sequence, each handled once; forgotten when they are older than '
    'the retention.';
