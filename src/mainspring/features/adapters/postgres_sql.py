"""The statements of the online store on Postgres, and how its sessions are set."""

from __future__ import annotations

from functools import lru_cache

SWEPT_AT_ONCE = 10_000
MADE = "SELECT to_regclass('mainspring_online.entity') IS NOT NULL"
# Whoever comes first makes the tables; the lock's number is the name in bytes.
SCHEMA = f"""
SELECT pg_advisory_xact_lock({int.from_bytes(b"mainspri", "big")});
CREATE SCHEMA IF NOT EXISTS mainspring_online;
CREATE TABLE IF NOT EXISTS mainspring_online.slot (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text NOT NULL, view text,
    position bigint, landed bigint, newest bigint, until bigint, UNIQUE (project, view)
);
CREATE TABLE IF NOT EXISTS mainspring_online.entity (
    slot bigint NOT NULL, key bytea NOT NULL, position bigint NOT NULL, landed bigint NOT NULL, payload bytea NOT NULL,
    PRIMARY KEY (slot, key)
);
ALTER TABLE mainspring_online.entity ALTER COLUMN payload SET STORAGE EXTERNAL;
"""
# Of one view; for several, a statement is several of these.
FOUND = """
SELECT {columns} FROM mainspring_online.slot AS s
CROSS JOIN unnest(%b::bytea[]) WITH ORDINALITY AS w (key, n)
JOIN mainspring_online.entity AS e ON e.slot = s.id AND e.key = w.key WHERE s.project = %b AND s.view = %b
"""
# The slot's row stays locked until the end, so that a slot is not taken away from under a write.
SLOT = """
INSERT INTO mainspring_online.slot AS held (project, view) VALUES (%b, %b)
ON CONFLICT (project, view) DO UPDATE SET until = held.until RETURNING id
"""
WRITE = f"""
WITH mine AS ({SLOT})
INSERT INTO mainspring_online.entity AS held (slot, key, position, landed, payload)
SELECT mine.id, w.* FROM mine, unnest(%b::bytea[], %b::bigint[], %b::bigint[], %b::bytea[]) AS w
ON CONFLICT (slot, key) DO UPDATE
SET position = excluded.position, landed = excluded.landed, payload = excluded.payload
WHERE (excluded.position, excluded.landed) >= (held.position, held.landed)
"""
ADVANCE = """
INSERT INTO mainspring_online.slot AS held (project, view, position, landed, newest, until)
VALUES (%b, %b, %b, %b, %b, %b)
ON CONFLICT (project, view) DO UPDATE
SET position = excluded.position, landed = excluded.landed, newest = excluded.newest, until = excluded.until
WHERE held.position IS NULL OR (excluded.position, excluded.landed, excluded.newest, excluded.until)
   >= (held.position, held.landed, held.newest, held.until)
"""
MARK = """
SELECT position, landed, newest, until FROM mainspring_online.slot
WHERE project = %b AND view = %b AND position IS NOT NULL
"""
FORGET = "UPDATE mainspring_online.slot SET view = NULL WHERE project = %b AND view = %b"
RENAME = "UPDATE mainspring_online.slot SET view = %b WHERE project = %b AND view = %b"
VIEWS = """
SELECT view FROM mainspring_online.slot WHERE project = %b AND view IS NOT NULL
AND (position IS NOT NULL OR EXISTS (SELECT FROM mainspring_online.entity WHERE slot = id))
"""
# By the primary key, a piece after the other.
ENTITIES = """
SELECT e.key, e.position, e.payload, e.landed FROM mainspring_online.entity AS e
WHERE e.slot = (SELECT id FROM mainspring_online.slot WHERE project = %b AND view = %b) AND e.key {after} %b
ORDER BY e.key LIMIT 1000
"""
DOOMED = "SELECT id FROM mainspring_online.slot WHERE project = %b AND view IS NULL"
SWEEP = f"""
DELETE FROM mainspring_online.entity WHERE slot = %b AND key IN (
    SELECT key FROM mainspring_online.entity WHERE slot = %b LIMIT {SWEPT_AT_ONCE} FOR UPDATE SKIP LOCKED)
"""
SWEPT = """
DELETE FROM mainspring_online.slot WHERE id = %b AND view IS NULL
AND NOT EXISTS (SELECT FROM mainspring_online.entity WHERE slot = id)
"""
# Every read goes by keys in the order written, whatever the planner believes of tables that were filled a moment ago.
READING = {
    "statement_timeout": "1000",
    "plan_cache_mode": "force_generic_plan",
    "join_collapse_limit": "1",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
WRITING = {"statement_timeout": "60000", "lock_timeout": "10000", "jit": "off"}


@lru_cache
def found(views: int, columns: str) -> str:
    if views == 1:
        return FOUND.format(columns=f"n, {columns}")
    return " UNION ALL ".join(FOUND.format(columns=f"n, {columns}, {which}") for which in range(views))
