SELECT json_build_object(
    'version', current_setting('server_version'),
    'data_bytes', (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database),
    'wal_bytes', (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()),
    'oldest', (SELECT substr(w.least, 1, 8) || '/' || upper(to_hex(
            ('x' || substr(w.least, 9))::bit(32)::bigint * pg_size_bytes(current_setting('wal_segment_size'))))
        FROM (SELECT min(substr(name, 9)) AS least FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') w),
    'floors', (SELECT json_agg(current_setting(n)::int ORDER BY o) FROM unnest(ARRAY['max_connections', 'max_worker_processes',
        'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction']) WITH ORDINALITY AS f(n, o)),
    'settings', (SELECT coalesce(json_agg(json_build_object(
        'name', s.name, 'value', current_setting(s.name),
        'source', CASE WHEN s.sourcefile LIKE '%/postgresql.auto.conf' THEN 'alter system' ELSE s.source END,
        'boot_value', CASE s.unit WHEN '8kB' THEN CASE WHEN s.boot_val::bigint > 0 THEN s.boot_val::bigint * 8 || 'kB' ELSE s.boot_val END
            ELSE s.boot_val || CASE WHEN s.boot_val IN ('0', '-1') THEN '' ELSE coalesce(s.unit, '') END END,
        'restart', s.context = 'postmaster') ORDER BY s.name), '[]')
        FROM pg_settings s WHERE NOT pg_is_in_recovery() AND s.context <> 'internal' AND s.source NOT IN ('client', 'session')
            AND s.name <> 'primary_conninfo'),
    'pending_restart', (SELECT coalesce(json_agg(json_build_object(
        'parameter', s.name, 'current', current_setting(s.name),
        'wanted', (SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = s.name ORDER BY f.seqno DESC LIMIT 1))), '[]')
        FROM pg_settings s WHERE s.pending_restart),
    'errors', (SELECT coalesce(json_agg(e.line), '[]') FROM (
        SELECT format('%s, line %s: %s: %s', regexp_replace(sourcefile, '^.*/', ''), sourceline, name, error) AS line
        FROM pg_file_settings
        WHERE error IS NOT NULL AND error <> 'setting could not be applied'
        UNION ALL
        SELECT format('pg_hba.conf, line %s: %s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL) e)
)::text
