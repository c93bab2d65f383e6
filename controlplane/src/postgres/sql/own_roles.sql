DO $had$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'had_replication') THEN
        CREATE ROLE had_replication LOGIN REPLICATION;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'had_rewind') THEN
        CREATE ROLE had_rewind LOGIN;
    END IF;
    IF NOT has_function_privilege('had_rewind', 'pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE') THEN
        GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO had_rewind;
        GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO had_rewind;
        GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO had_rewind;
        GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO had_rewind;
    END IF;
END
$had$
