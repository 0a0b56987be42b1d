-- The funnel is asked for every second and read whenever metrics are: counted as requests move, that costs the same however
-- many there have ever been. A trigger counts, so that no writer can forget to, such as a worker of an older release.

CREATE TABLE step_count (
    step  text PRIMARY KEY,
    count bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE step_count IS 'How many requests stand at each step.';

CREATE FUNCTION count_steps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO step_count AS known (step, count)
        SELECT step, count(*) FROM newly GROUP BY step ORDER BY step
        ON CONFLICT (step) DO UPDATE SET count = known.count + excluded.count;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO step_count AS known (step, count)
        SELECT step, sum(change)
        FROM (SELECT step, 1 AS change FROM newly UNION ALL SELECT step, -1 FROM formerly) AS moved
        GROUP BY step HAVING sum(change) <> 0 ORDER BY step
        ON CONFLICT (step) DO UPDATE SET count = known.count + excluded.count;
    ELSE
        DELETE FROM step_count;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_steps IS 'Counts the requests that reach and leave each step, in the order of steps: no two workers wait in a circle.';

CREATE TRIGGER count_new_requests AFTER INSERT ON request
    REFERENCING NEW TABLE AS newly FOR EACH STATEMENT EXECUTE FUNCTION count_steps();
CREATE TRIGGER count_moved_requests AFTER UPDATE ON request
    REFERENCING OLD TABLE AS formerly NEW TABLE AS newly FOR EACH STATEMENT EXECUTE FUNCTION count_steps();
CREATE TRIGGER count_no_requests AFTER TRUNCATE ON request FOR EACH STATEMENT EXECUTE FUNCTION count_steps();

INSERT INTO step_count (step, count) SELECT step, count(*) FROM request GROUP BY step;
