SELECT c.timeline_id, s.system_identifier FROM pg_control_checkpoint() c, pg_control_system() s
