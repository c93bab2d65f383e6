SELECT json_build_object(
    'standby', s.standby,
    'started_us', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
    'system_id', (SELECT system_identifier::text FROM pg_control_system()),
    'timeline', CASE WHEN s.standby THEN NULL
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END,
    'insert_lsn', CASE WHEN s.standby THEN NULL ELSE pg_current_wal_insert_lsn()::text END,
    'flush_lsn', CASE WHEN s.standby THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
    'received_lsn', CASE WHEN s.standby THEN pg_last_wal_receive_lsn()::text END,
    'replayed_lsn', CASE WHEN s.standby THEN pg_last_wal_replay_lsn()::text END,
    'paused', CASE WHEN s.standby THEN pg_is_wal_replay_paused() ELSE false END,
    'replay_age_ms', CASE WHEN s.standby THEN
        (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END,
    'conninfo', current_setting('primary_conninfo'),
    'restore_command', current_setting('restore_command'),
    'clients', (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
    'archive_failing', (SELECT last_failed_wal FROM pg_stat_archiver
        WHERE current_setting('archive_mode') <> 'off'
          AND last_failed_time > coalesce(last_archived_time, '-infinity')),
    'senders', (SELECT coalesce(json_agg(json_build_object(
        'pid', pid, 'name', application_name, 'state', state, 'sync_state', sync_state,
        'priority', sync_priority, 'sent_lsn', sent_lsn::text, 'flush_lsn', flush_lsn::text,
        'replay_lsn', replay_lsn::text,
        'reply_age_ms', greatest(0, (extract(epoch FROM clock_timestamp() - reply_time) * 1000)::bigint))), '[]')
        FROM pg_stat_replication),
    'receiver', (SELECT json_build_object(
        'pid', pid, 'status', status, 'timeline', received_tli, 'flushed_lsn', flushed_lsn::text,
        'told_lsn', latest_end_lsn::text,
        'heard_ms', greatest(0, (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint),
        'conninfo', conninfo)
        FROM pg_stat_wal_receiver),
    'slots', (SELECT coalesce(json_agg(json_build_object(
        'name', slot_name, 'active', active, 'restart_lsn', restart_lsn::text, 'lost', wal_status = 'lost',
        'held_bytes', greatest(0, pg_wal_lsn_diff(
            CASE WHEN s.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn))::bigint)), '[]')
        FROM pg_replication_slots WHERE slot_type = 'physical')
)::text
FROM (SELECT pg_is_in_recovery() AS standby) s
