//! Groups from their creation on.
