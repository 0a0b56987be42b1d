-- A round asks for what has changed in the order in which it is due, requests without a time first. An index in that very
-- order is scanned from its start, whatever the planner knows of the table, and forgets entries of rows that have gone as it
-- passes them; a bitmap, which it took for the sort, collects them all again each time until the table is vacuumed.

DROP INDEX pool_changed;
CREATE INDEX pool_changed ON pool (due NULLS FIRST, request_id) WHERE changed;
