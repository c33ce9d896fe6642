-- Rows at random, at about 50/s: the backend touches ever more of the shared
-- buffers, until it has seen all of them.
\set aid random(1, 2000000)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\sleep 20 ms
