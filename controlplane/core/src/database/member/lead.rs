//! Steps of an instance.
