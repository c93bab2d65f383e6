SELECT json_build_object(
    'version', current_setting('server_version'),
    'data_bytes', (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database),
    'wal_bytes', (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()),
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
