SELECT current_setting('synchronous_standby_names'), current_setting('primary_conninfo'),
    current_setting('restore_command'),
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn()::text END
