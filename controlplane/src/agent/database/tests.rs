//! Instances of real PostgreSQL, run by their drivers under guards, in step with a record that the test writes.
