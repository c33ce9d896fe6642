-- A session that prepares a statement under a new name each time and never
-- deallocates one, about once a second: what a driver does that names its
-- statements by a counter and forgets them.
\set n random(1, 1000000000000)
\set aid random(1, 2000000)
PREPARE s_:n (int) AS SELECT a.abalance, b.bbalance FROM pgbench_accounts a JOIN pgbench_branches b USING (bid) WHERE a.aid = $1;
EXECUTE s_:n (:aid);
\sleep 1000 ms
