CREATE SCHEMA IF NOT EXISTS had;
CREATE TABLE IF NOT EXISTS had.probe (id int PRIMARY KEY, at timestamptz NOT NULL) WITH (fillfactor = 10);
